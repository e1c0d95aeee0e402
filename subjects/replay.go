package subjects

// Replay names a replay: its record is kept in CIM_REPLAYS at cim-replay.<id>,
// and as long as it runs it answers at cim-replaying.<id>.
type Replay struct {
	ID string
}

// Subject is where the replay's record is kept. An id that cannot be a token is
// refused with an *Error.
func (r Replay) Subject() (string, error) { return r.subject(replayPrefix) }

// Running is where the replay answers while it runs. It refuses what Subject
// refuses.
func (r Replay) Running() (string, error) { return r.subject(replayingPrefix) }

func (r Replay) subject(prefix string) (string, error) {
	return build(prefix, named(fieldReplay, r.ID))
}

// ParseReplay takes the subject of a replay's record apart. What is not exactly
// a subject that Subject writes is refused with an *Error.
func ParseReplay(subject string) (Replay, error) {
	p := parse("subject", subject, replayPrefix, "cim-replay.<id>")
	r := Replay{ID: p.name(fieldReplay)}
	if p.err != nil {
		return Replay{}, p.err
	}
	return r, nil
}
