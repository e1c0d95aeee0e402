package subjects

// room is the stack space a subject is built in before the one allocation that
// holds it. Longer subjects are legal, they only cost a second one.
const room = 192

// part is one token of a subject to build.
type part struct {
	field   string // what Error calls it
	name    string // a name to encode, or a token of the package's own
	literal bool   // name is such a token
	lower   bool   // fold name to ASCII lower case
}

// literal is a token of the package's own: none or a wildcard, never a name.
func literal(token string) part { return part{name: token, literal: true} }

// named is a name that must be given.
func named(field, name string) part { return part{field: field, name: name} }

// channel is a channel type in lower case, or none.
func channel(name string) part {
	if name == "" {
		return literal(none)
	}
	return part{field: fieldChannel, name: name, lower: true}
}

// conversation is a conversation id, or none.
func conversation(name string) part {
	if name == "" {
		return literal(none)
	}
	return named(fieldConversation, name)
}

// build writes a subject or, without a prefix, a key.
func build(prefix string, parts ...part) (string, error) {
	var space [room]byte
	subject, err := appendParts(space[:0], prefix, parts...)
	if err != nil {
		return "", err
	}
	return string(subject), nil
}

// appendParts is build into the caller's space.
func appendParts(dst []byte, prefix string, parts ...part) ([]byte, error) {
	dst = append(dst, prefix...)
	for _, p := range parts {
		if len(dst) > 0 {
			dst = append(dst, '.')
		}
		if p.literal {
			dst = append(dst, p.name...)
			continue
		}
		var problem string
		if dst, problem = appendToken(dst, p.name, p.lower); problem != "" {
			return nil, &Error{Field: p.field, Name: p.name, Problem: problem}
		}
	}
	return dst, nil
}
