package subjects

// Index names a conversation's commit record and history:
// cim-index.<tenant>.<conversation>, stored in CIM_INDEX.
type Index struct {
	Tenant       string
	Conversation string // "" for the tenant's events of no conversation
}

// Subject is where the index entries are. A name that cannot be a token is
// refused with an *Error.
func (i Index) Subject() (string, error) {
	return build(indexPrefix, named(fieldTenant, i.Tenant), conversation(i.Conversation))
}

// ParseIndex takes an index subject apart. What is not exactly a subject that
// Subject writes is refused with an *Error.
func ParseIndex(subject string) (Index, error) {
	p := parse("subject", subject, indexPrefix, "cim-index.<tenant>.<conversation>")
	i := Index{Tenant: p.name(fieldTenant), Conversation: p.conversation()}
	if p.err != nil {
		return Index{}, p.err
	}
	return i, nil
}
