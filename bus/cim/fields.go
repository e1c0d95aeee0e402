package cim

// fields are the routing fields of an event object, or of a wrapper, as they stand in the bytes.
type fields struct {
	raw                           []byte
	id, name, kind, timestamp     value
	conversation, topic, roomInfo value
	own, ofData, ofHeader         session
	cimEvent                      value
}

// session is what routing needs of a channel session.
type session struct {
	raw                          []byte
	conversation, topic, channel value
}

// document reads a whole document, which must be one object. The field is what it is called in errors.
func (f *fields) document(text []byte, field string, inner *fields) error {
	s := scanner{data: text}
	kind := s.peek()
	if kind == '{' {
		f.scan(&s, inner)
	} else {
		s.skip()
	}
	if err := s.end(field); err != nil {
		return err
	}
	if kind != '{' {
		return notAnEvent(field, kind)
	}
	return nil
}

// scan reads the object at s. If inner is given, an object under the key cimEvent is read into it; the value is kept in
// f.cimEvent in any case.
func (f *fields) scan(s *scanner, inner *fields) {
	start := s.pos
	for more := s.open('}'); more; more = s.more('}') {
		switch string(s.key()) {
		case "id":
			f.id = s.value()
		case "name":
			f.name = s.value()
		case "type":
			f.kind = s.value()
		case "timestamp":
			f.timestamp = s.value()
		case "conversationId":
			f.conversation = s.value()
		case "topicId":
			f.topic = s.value()
		case "roomInfo":
			f.roomInfo = s.value()
		case "channelSession":
			f.own = s.session()
		case "data":
			f.scanData(s)
		case "cimEvent":
			f.scanWrapped(s, inner)
		default:
			s.skip()
		}
	}
	f.raw = s.data[start:s.pos]
}

func (f *fields) scanWrapped(s *scanner, inner *fields) {
	if inner == nil || s.peek() != '{' {
		f.cimEvent = s.value()
		return
	}
	*inner = fields{}
	inner.scan(s, nil)
	f.cimEvent = inner.raw
}

func (f *fields) scanData(s *scanner) {
	f.ofData, f.ofHeader = session{}, session{}
	if s.peek() != '{' {
		s.skip()
		return
	}
	for more := s.open('}'); more; more = s.more('}') {
		switch string(s.key()) {
		case "channelSession":
			f.ofData = s.session()
		case "header":
			f.ofHeader = s.header()
		default:
			s.skip()
		}
	}
}

func (s *scanner) header() (of session) {
	if s.peek() != '{' {
		s.skip()
		return of
	}
	for more := s.open('}'); more; more = s.more('}') {
		if string(s.key()) == "channelSession" {
			of = s.session()
		} else {
			s.skip()
		}
	}
	return of
}

// session reads a channel session. Anything but an object, null for one, is none.
func (s *scanner) session() (of session) {
	if s.peek() != '{' {
		s.skip()
		return of
	}
	start := s.pos
	for more := s.open('}'); more; more = s.more('}') {
		switch string(s.key()) {
		case "conversationId":
			of.conversation = s.value()
		case "topicId":
			of.topic = s.value()
		case "channel":
			of.channel = s.find("channelType", "name")
		default:
			s.skip()
		}
	}
	of.raw = s.data[start:s.pos]
	return of
}

// fill completes e, whose Conversation may be known already, from an event's fields.
func (f *fields) fill(e *Event) error {
	e.ID = f.id.text()
	e.Name = f.name.text()
	e.Type = f.kind.text()
	e.Time = timestamp(f.timestamp)
	e.Conversation = first(e.Conversation, f.conversation, f.topic,
		f.own.conversation, f.own.topic,
		f.ofData.conversation, f.ofData.topic,
		f.ofHeader.conversation, f.ofHeader.topic)
	e.Channel = first("", f.own.channel, f.ofData.channel, f.ofHeader.channel)
	e.Body = f.raw
	for _, of := range []*session{&f.own, &f.ofData, &f.ofHeader} {
		if of.raw != nil {
			e.Session = of.raw
			break
		}
	}
	if f.roomInfo.kind() != 'n' {
		e.RoomInfo = f.roomInfo
	}
	if e.Name == "" {
		return missing(ReasonNoName, "name", f.name, "set it to the event's name, such as CUSTOMER_MESSAGE")
	}
	if e.ID == "" {
		return missing(ReasonNoID, "id", f.id, "give every event an id of its own, such as a UUID")
	}
	return nil
}

// first is the first text that is not empty.
func first(text string, candidates ...value) string {
	for _, candidate := range candidates {
		if text != "" {
			break
		}
		text = candidate.text()
	}
	return text
}
