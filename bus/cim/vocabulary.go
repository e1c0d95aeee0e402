package cim

// The public event names. The set is open: an unknown name is routed like a known one.
const (
	CustomerMessage             = "CUSTOMER_MESSAGE"
	AgentMessage                = "AGENT_MESSAGE"
	BotMessage                  = "BOT_MESSAGE"
	BotSuggestion               = "BOT_SUGGESTION"
	WhisperMessage              = "WHISPER_MESSAGE"
	ActionMessage               = "ACTION_MESSAGE"
	MessageDeliveryNotification = "MESSAGE_DELIVERY_NOTIFICATION"
	TypingIndicator             = "TYPING_INDICATOR"
	ChannelSessionStarted       = "CHANNEL_SESSION_STARTED"
	ChannelSessionEnded         = "CHANNEL_SESSION_ENDED"
	ChannelSessionExpired       = "CHANNEL_SESSION_EXPIRED"
	ChannelSessionDataUpdated   = "CHANNEL_SESSION_DATA_UPDATED"
	RemoveChannelSession        = "REMOVE_CHANNEL_SESSION"
	CustomerLeft                = "CUSTOMER_LEFT"
	AssociatedCustomerChanged   = "ASSOCIATED_CUSTOMER_CHANGED"
	ConversationDataChanged     = "CONVERSATION_DATA_CHANGED"
	TopicStateChangeEvent       = "TOPIC_STATE_CHANGE_EVENT"
	ConversationPaused          = "CONVERSATION_PAUSED"
	ConversationResumed         = "CONVERSATION_RESUMED"
	HoldTimer                   = "HOLD_TIMER"
	AgentReserved               = "AGENT_RESERVED"
	AgentReservedTimeout        = "AGENT_RESERVED_TIMEOUT"
	AgentAcceptTimeout          = "AGENT_ACCEPT_TIMEOUT"
	AgentSubscribed             = "AGENT_SUBSCRIBED"
	AgentUnsubscribed           = "AGENT_UNSUBSCRIBED"
	ParticipantRoleChanged      = "PARTICIPANT_ROLE_CHANGED"
	AdvisorSubscribed           = "ADVISOR_SUBSCRIBED"
	RoomCreated                 = "ROOM_CREATED"
	RoomMemberStatusChanged     = "ROOM_MEMBER_STATUS_CHANGED"
	BotSubscribed               = "BOT_SUBSCRIBED"
	BotUnsubscribed             = "BOT_UNSUBSCRIBED"
	BotTimeout                  = "BOT_TIMEOUT"
	BotNotAvailable             = "BOT_NOT_AVAILABLE"
	TaskEnqueued                = "TASK_ENQUEUED"
	TaskStateChanged            = "TASK_STATE_CHANGED"
	NoAgentAvailable            = "NO_AGENT_AVAILABLE"
	AssignResourceRequested     = "ASSIGN_RESOURCE_REQUESTED"
	FindAgent                   = "FIND_AGENT"
	RevokeResource              = "REVOKE_RESOURCE"
	AgentOutbound               = "AGENT_OUTBOUND"
	AgentSLA                    = "AGENT_SLA"
	AgentSLAStarted             = "AGENT_SLA_STARTED"
	AgentSLAStopped             = "AGENT_SLA_STOPPED"
	AgentSLAExpired             = "AGENT_SLA_EXPIRED"
	ResetAgentSLA               = "RESET_AGENT_SLA"
	RemoveAllAgents             = "REMOVE_ALL_AGENTS"
	CustomerSLA                 = "CUSTOMER_SLA"
	CustomerSLAStarted          = "CUSTOMER_SLA_STARTED"
	CustomerSLAStopped          = "CUSTOMER_SLA_STOPPED"
	CustomerSLAExpired          = "CUSTOMER_SLA_EXPIRED"
	ResponseSLABreached         = "RESPONSE_SLA_BREACHED"
	CustomerActivityTimeout     = "CUSTOMER_ACTIVITY_TIMEOUT"
	NoResponseEntity            = "NO_RESPONSE_ENTITY"
	EWTMessage                  = "EWT_MESSAGE"
	AgentMRDInterrupted         = "AGENT_MRD_INTERRUPTED"
	HandRaised                  = "HAND_RAISED"
	HandDown                    = "HAND_DOWN"
	CallLegStarted              = "CALL_LEG_STARTED"
	CallLegEnded                = "CALL_LEG_ENDED"
	VoiceActivity               = "VOICE_ACTIVITY"
	IVRAggregatedActivity       = "IVR_AGGREGATED_ACTIVITY"
	CallHold                    = "CALL_HOLD"
	CallResume                  = "CALL_RESUME"
	CiscoVoiceEvent             = "CISCO_VOICE_EVENT"
	WrapupApplied               = "WRAPUP_APPLIED"
	ThirdPartyActivity          = "THIRD_PARTY_ACTIVITY"
	ExternalGadgetRequested     = "EXTERNAL_GADGET_REQUESTED"
)

// IsMembership says whether events of this name change who is a member of a conversation, or how. Publishing them is a grant
// of its own.
func IsMembership(name string) bool {
	switch name {
	case AgentSubscribed, AgentUnsubscribed, ParticipantRoleChanged, TopicStateChangeEvent:
		return true
	}
	return false
}

// IsTransient says whether events of this name are only worth anything live: they are in no delivery stream, index, snapshot or
// resume.
func IsTransient(name string) bool { return name == TypingIndicator }
