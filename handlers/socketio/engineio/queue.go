package engineio

// queue of messages waiting to be sent to one session. Its memory goes when it is empty: most sessions are idle most of the time.
type queue struct {
	waiting []*Message
	bytes   int
}

func (q *queue) push(m *Message) {
	q.waiting = append(q.waiting, m)
	q.bytes += len(m.frame)
}

// take removes messages from the front, at most limit bytes of them but at least one.
func (q *queue) take(limit int) []*Message {
	n, size := 0, 0
	for n < len(q.waiting) {
		size += len(q.waiting[n].frame)
		if n > 0 && size > limit {
			size -= len(q.waiting[n].frame)
			break
		}
		n++
	}
	batch := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	if len(q.waiting) == 0 {
		q.waiting = nil
	}
	q.bytes -= size
	return batch
}
