package socketio_test

import (
	"context"
	"fmt"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"

	"github.com/coder/websocket"

	"github.com/cimbus/cimbus/handlers/socketio"
)

// talk is a client that says a few packets and prints what it gets until there are that many answers.
func talk(url string, answers int, packets ...string) {
	ctx := context.Background()
	conn, response, err := websocket.Dial(ctx, strings.Replace(url, "http", "ws", 1)+"/socket.io/?EIO=4&transport=websocket", nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.CloseNow()
	if response.Body != nil {
		defer response.Body.Close()
	}
	_, _, _ = conn.Read(ctx) // Engine.IO's own
	for _, packet := range packets {
		if err := conn.Write(ctx, websocket.MessageText, []byte(packet)); err != nil {
			fmt.Println(err)
			return
		}
	}
	for range answers {
		_, packet, err := conn.Read(ctx)
		if err != nil {
			fmt.Println(err)
			return
		}
		text, _, connected := strings.Cut(string(packet), `{"sid"`)
		if connected {
			text += "{…}"
		}
		fmt.Println(text)
	}
}

// A namespace with middleware, an event with an ack, and one without.
func Example() {
	srv, err := socketio.New(socketio.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	desk := srv.Of("/desk")
	desk.Use(func(_ context.Context, h *socketio.Handshake) error {
		if string(h.Auth) != `{"agent":"ada"}` {
			return &socketio.Refusal{Message: "login-failed", Data: map[string]string{"msg": "who are you?"}}
		}
		h.Data = "ada"
		return nil
	})
	desk.OnConnect(func(s *socketio.Socket) { _ = s.Emit("welcome", s.Handshake().Data) })
	desk.On("add", func(_ *socketio.Socket, e *socketio.Event) {
		var a, b int
		if err := e.Decode(&a, &b); err != nil {
			_ = e.Ack(err.Error())
			return
		}
		_ = e.Ack(a + b)
	})

	web := httptest.NewServer(srv)
	defer web.Close()
	talk(web.URL, 1, `40/desk,{"agent":"eve"}`)
	talk(web.URL, 3, `40/desk,{"agent":"ada"}`, `42/desk,7["add",2,3]`)
	if err := srv.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 44/desk,{"message":"login-failed","data":{"msg":"who are you?"}}
	// 40/desk,{…}
	// 42/desk,["welcome","ada"]
	// 43/desk,7[5]
}

// One encoding for all receivers: what is prepared once may be sent to any number of sockets.
func ExampleNamespace_Prepare() {
	srv, err := socketio.New(socketio.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	news := srv.Of("/")
	message, err := news.Prepare("", "headline", socketio.Verbatim(`{"text":"hello"}`), []byte{1, 2, 3})
	if err != nil {
		fmt.Println(err)
		return
	}
	news.OnConnect(func(s *socketio.Socket) { _ = s.EmitPrepared(message) })

	web := httptest.NewServer(srv)
	defer web.Close()
	talk(web.URL, 2, "40")
	talk(web.URL, 2, "40")
	if err := srv.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 40{…}
	// 451-["headline",{"text":"hello"},{"_placeholder":true,"num":0}]
	// 40{…}
	// 451-["headline",{"text":"hello"},{"_placeholder":true,"num":0}]
}

// numbers is an application's log whose offsets are positions: a client that comes back gets what it has missed.
type numbers struct {
	mu    sync.Mutex
	log   []string
	ended map[string]bool
}

func (*numbers) Begin(context.Context, *socketio.Socket) (string, error) { return "p-1", nil } // of one session: else socketio.NewID

func (n *numbers) Resume(_ context.Context, _ *socketio.Socket, pid, offset string) (bool, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	position, err := strconv.Atoi(offset)
	return err == nil && position <= len(n.log) && !n.ended[pid], nil
}

func (n *numbers) End(_ context.Context, _ *socketio.Socket, pid string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ended[pid] = true
}

func (n *numbers) connected(s *socketio.Socket) {
	n.mu.Lock()
	defer n.mu.Unlock()
	position, _ := strconv.Atoi(s.Offset()) // 0 for a session that is new
	for ; position < len(n.log); position++ {
		if m, err := s.Namespace().Prepare(strconv.Itoa(position+1), "number", n.log[position]); err == nil {
			_ = s.EmitPrepared(m)
		}
	}
}

func ExampleRecoverer() {
	srv, err := socketio.New(socketio.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	n := &numbers{log: []string{"one", "two", "three"}, ended: make(map[string]bool)}
	srv.Of("/").Recover(n)
	srv.Of("/").OnConnect(n.connected)

	web := httptest.NewServer(srv)
	defer web.Close()
	talk(web.URL, 3, "40") // it has gone by the third
	talk(web.URL, 2, `40{"pid":"p-1","offset":"2"}`)
	if err := srv.Close(context.Background()); err != nil {
		fmt.Println(err)
	}
	// Output:
	// 40{…}
	// 42["number","one","1"]
	// 42["number","two","2"]
	// 40{…}
	// 42["number","three","3"]
}
