package engineio

// Hanging tells whether a poll hangs.
func (s *Session) Hanging() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.poll != nil
}
