package cim

// SessionParts are the id of the event's channel session and its customer, raw; "" and nil where there is none. One pass.
func (e *Event) SessionParts() (id string, customer []byte) {
	s := scanner{data: e.Session}
	if s.peek() != '{' {
		return "", nil
	}
	var sessionID, of value
	for more := s.open('}'); more; more = s.more('}') {
		switch string(s.key()) {
		case "id":
			sessionID = s.value()
		case "customer":
			of = s.value()
		default:
			s.skip()
		}
	}
	if of.kind() == '{' {
		customer = of
	}
	return sessionID.text(), customer
}
