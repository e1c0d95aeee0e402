package engineio

// maxPooled is the largest buffer that is kept: one client's megabyte must not stay for ever.
const maxPooled = 64 << 10

func (srv *Server) takeBuffer() *[]byte {
	if buffer, ok := srv.buffers.Get().(*[]byte); ok {
		return buffer
	}
	buffer := make([]byte, 0, 8<<10)
	return &buffer
}

func (srv *Server) giveBuffer(buffer *[]byte) {
	if cap(*buffer) > maxPooled {
		return
	}
	*buffer = (*buffer)[:0]
	srv.buffers.Put(buffer)
}
