package cim

import "slices"

// deliveryTime is RFC 3339 in UTC with milliseconds.
const deliveryTime = "2006-01-02T15:04:05.000Z"

// deliveryFrame is what a delivery takes beside the bytes of its event, and some more, so that it is written in one piece.
const deliveryFrame = 256

// AppendDelivery appends the documented body of onCimEvent to dst and returns it:
//
//	{"cimEvent":{…},"conversationId":"…","id":"…","channelSession":{…}|null,"status":"…"|null,"listId":"…"|null,
//	 "time":"…"|null,"roomInfo":{…}}
//
// cimEvent is e.Body byte for byte, time is RFC 3339 in UTC with milliseconds, and roomInfo is there only if the event has
// one. Without properties only cimEvent, conversationId and roomInfo are written. The result is valid JSON for every
// event that [Decode] returned without an error, whatever the ids contain.
func AppendDelivery(dst []byte, e *Event, conversation string, properties bool) []byte {
	dst = slices.Grow(dst, len(e.Body)+len(e.Session)+len(e.RoomInfo)+deliveryFrame+len(conversation)+len(e.ID))
	dst = appendMember(dst, `{"cimEvent":`, e.Body)
	dst = append(dst, `,"conversationId":`...)
	dst = appendString(dst, conversation)
	if properties {
		status, listID := e.sessionProperties()
		dst = append(dst, `,"id":`...)
		dst = appendString(dst, e.ID)
		dst = appendMember(dst, `,"channelSession":`, e.Session)
		dst = append(dst, `,"status":`...)
		dst = appendStringOrNull(dst, status)
		dst = append(dst, `,"listId":`...)
		dst = appendStringOrNull(dst, listID)
		dst = append(dst, `,"time":`...)
		if e.Time.IsZero() {
			dst = append(dst, "null"...)
		} else {
			dst = append(dst, '"')
			dst = e.Time.UTC().AppendFormat(dst, deliveryTime)
			dst = append(dst, '"')
		}
	}
	if e.RoomInfo != nil {
		dst = appendMember(dst, `,"roomInfo":`, e.RoomInfo)
	}
	return append(dst, '}')
}

// appendMember appends a raw value after its key, null if there is none.
func appendMember(dst []byte, key string, raw []byte) []byte {
	dst = append(dst, key...)
	if raw == nil {
		return append(dst, "null"...)
	}
	return append(dst, raw...)
}
