// Package subjects is the grammar of every subject and key-value key of the
// bus: building, parsing, and filters.
//
// A subject is a prefix and a fixed number of tokens, each made from a name of
// the domain (a tenant, a channel, an agent, a conversation):
//
//	cim.<tenant>.<channel>.<event>                       Event
//	cim-agent.<tenant>.<agent>.<type>.<conversation>     Delivery
//	cim-live.<tenant>.<agent>.<type>.<conversation>      Delivery.Live
//	cim-index.<tenant>.<conversation>                    Index
//	cim-dead.<handler>.<tenant>.<channel>.<event>.<s>    DeadLetter
//	cim-redrive.<handler>.<tenant>.<channel>.<event>.<s> DeadLetter.Redrive
//	cim-replay.<id>                                      Replay
//	cim-replaying.<id>                                   Replay.Running
//	cim-desk.<tenant>.<agent>.<desk event>               Desk
//	cim-ctl.<tenant>.<agent>.<verb>                      Control
//	cim-inbox.<tenant>.<agent>.>                         Inbox
//	$KV.CIM_MEMBERS.<tenant>.<agent>.<conversation>      MemberKey
//	$KV.CIM_CONVERSATIONS.<tenant>.<conversation>        ConversationKey
//
// Names are open input, so the package is a security boundary with these
// promises, for names of any bytes:
//
//   - Two different names never share a token, and so never a subject. The one
//     exception is meant: a channel is written in ASCII lower case.
//   - A token is never empty, never longer than MaxToken bytes, and holds
//     nothing but letters, digits, "_", "-" and "=". No dot, space or wildcard
//     comes out of any name; wildcards come from filters alone.
//   - Parsing accepts exactly what building writes and returns its names.
//
// Structs carry plain, decoded names. An empty Channel or Conversation means
// there is none and is written "_"; every other name must be given.
//
// Building allocates the subject and nothing else, parsing only what has to be
// decoded; parsed names share the memory of the subject they came from. All of
// the package is safe for concurrent use.
package subjects

// Subject patterns that hold everything of one family.
const (
	AllEvents        = "cim.*.*.*"
	AllDeliveries    = "cim-agent.>"
	AllLive          = "cim-live.>"
	AllIndex         = "cim-index.>"
	AllDeadLetters   = "cim-dead.>"
	AllRedrives      = "cim-redrive.>"
	AllReplays       = "cim-replay.>"
	AllReplaying     = "cim-replaying.>"
	AllDesk          = "cim-desk.>"
	AllControl       = "cim-ctl.>"
	AllInboxes       = "cim-inbox.>"
	AllMembers       = "$KV.CIM_MEMBERS.>"
	AllConversations = "$KV.CIM_CONVERSATIONS.>"
)

const (
	eventPrefix        = "cim"
	deliveryPrefix     = "cim-agent"
	livePrefix         = "cim-live"
	indexPrefix        = "cim-index"
	deadLetterPrefix   = "cim-dead"
	redrivePrefix      = "cim-redrive"
	replayPrefix       = "cim-replay"
	replayingPrefix    = "cim-replaying"
	deskPrefix         = "cim-desk"
	controlPrefix      = "cim-ctl"
	inboxPrefix        = "cim-inbox"
	memberPrefix       = "$KV.CIM_MEMBERS"
	conversationPrefix = "$KV.CIM_CONVERSATIONS"
)

// Fields, as Error names them.
const (
	fieldTenant       = "tenant"
	fieldChannel      = "channel"
	fieldEvent        = "event"
	fieldAgent        = "agent"
	fieldType         = "type"
	fieldConversation = "conversation"
	fieldHandler      = "handler"
	fieldSequence     = "sequence"
	fieldReplay       = "replay"
	fieldDeskEvent    = "desk event"
	fieldVerb         = "verb"
)
