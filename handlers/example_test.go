package handlers_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers"
)

// A handler of one's own: every raised hand reaches the team's supervisor, in order, once, and again after a break.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "cimbus")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	b, err := bus.Open(ctx, bus.Options{Embedded: embedded.Options{StoreDir: dir}})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer b.Close(ctx)

	worker, err := handlers.Start(ctx, b, handlers.Handler{
		Name:  "raised-hands",
		Types: []string{"handRaised"},
		Handle: func(_ context.Context, e handlers.Event) ([]handlers.Delivery, error) {
			if e.Name != "HAND_RAISED" {
				return nil, nil
			}
			return []handlers.Delivery{{Agent: "supervisor", Type: "handRaised", Payload: e.Body}}, nil
		},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer worker.Close(ctx)

	live, err := b.Conn().SubscribeSync("cim-live.acme.supervisor.>")
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := b.Conn().Publish("cim.acme.web.HAND_RAISED", []byte(`{"id":"1","name":"HAND_RAISED","conversationId":"c1"}`)); err != nil {
		fmt.Println(err)
		return
	}
	m, err := live.NextMsg(5 * time.Second)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Subject)
	fmt.Println(string(m.Data))
	// Output:
	// cim-live.acme.supervisor.handRaised.c1
	// {"id":"1","name":"HAND_RAISED","conversationId":"c1"}
}
