package subjects

// MemberKey names an agent's membership in a conversation, a key of the
// key-value bucket CIM_MEMBERS.
type MemberKey struct {
	Tenant       string
	Agent        string
	Conversation string // "" for none
}

// Key is the key in the bucket, <tenant>.<agent>.<conversation>. A name that
// cannot be a token is refused with an *Error.
func (k MemberKey) Key() (string, error) { return k.subject("") }

// Subject is the subject the bucket stores the key under,
// $KV.CIM_MEMBERS.<key>. A name that cannot be a token is refused with an
// *Error.
func (k MemberKey) Subject() (string, error) { return k.subject(memberPrefix) }

func (k MemberKey) subject(prefix string) (string, error) {
	return build(prefix, named(fieldTenant, k.Tenant), named(fieldAgent, k.Agent), conversation(k.Conversation))
}

// ParseMemberKey takes a key of CIM_MEMBERS apart. What is not exactly a key
// that Key writes is refused with an *Error.
func ParseMemberKey(key string) (MemberKey, error) {
	p := parse("key", key, "", "<tenant>.<agent>.<conversation>")
	k := MemberKey{Tenant: p.name(fieldTenant), Agent: p.name(fieldAgent), Conversation: p.conversation()}
	if p.err != nil {
		return MemberKey{}, p.err
	}
	return k, nil
}

// ConversationKey names a conversation's checkpoint, a key of the key-value
// bucket CIM_CONVERSATIONS.
type ConversationKey struct {
	Tenant       string
	Conversation string // "" for the tenant's events of no conversation
}

// Key is the key in the bucket, <tenant>.<conversation>. A name that cannot be
// a token is refused with an *Error.
func (k ConversationKey) Key() (string, error) { return k.subject("") }

// Subject is the subject the bucket stores the key under,
// $KV.CIM_CONVERSATIONS.<key>. A name that cannot be a token is refused with an
// *Error.
func (k ConversationKey) Subject() (string, error) { return k.subject(conversationPrefix) }

func (k ConversationKey) subject(prefix string) (string, error) {
	return build(prefix, named(fieldTenant, k.Tenant), conversation(k.Conversation))
}

// ParseConversationKey takes a key of CIM_CONVERSATIONS apart. What is not
// exactly a key that Key writes is refused with an *Error.
func ParseConversationKey(key string) (ConversationKey, error) {
	p := parse("key", key, "", "<tenant>.<conversation>")
	k := ConversationKey{Tenant: p.name(fieldTenant), Conversation: p.conversation()}
	if p.err != nil {
		return ConversationKey{}, p.err
	}
	return k, nil
}
