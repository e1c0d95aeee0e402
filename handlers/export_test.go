package handlers

import (
	"context"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/bus"
)

// Hand is a worker's hand on one conversation without its epochs: tests lead several of them over the same events at once.
type Hand struct{ conv *conversation }

// NewHand makes one; every one has a connection context and caches of its own.
func NewHand(b *bus.Bus, h Handler, tenant, id string) (*Hand, error) {
	js, err := jetstream.New(b.Conn(), jetstream.WithPublishAsyncTimeout(5*time.Second))
	if err != nil {
		return nil, err
	}
	log := hclog.NewNullLogger()
	w := &Worker{
		bus: b, js: js, handler: h.withDefaults(), log: log, tenants: bus.NewPerTenant[tally](b), reasons: newReasons(),
		outage: &reports{log: log, message: "outage"}, failing: &reports{log: log, message: "failing"}, dying: &reports{log: log, message: "buried"},
	}
	return &Hand{conv: newConversation(w, laneKey{tenant, id})}, nil
}

// Process brings one stored event to its end.
func (h *Hand) Process(ctx context.Context, m *jetstream.RawStreamMsg) error {
	e, _, why := decode(m.Subject, m.Header, m.Data, m.Sequence, m.Time)
	_, err := h.conv.process(ctx, e, why)
	return err
}

// Forget makes the hand read everything anew, as a new epoch does.
func (h *Hand) Forget() { h.conv.forget() }

// Redo makes the hand do the events from one sequence to another again, whatever the index says.
func (h *Hand) Redo(from, to uint64) { h.conv.w.redoFrom, h.conv.w.redoUntil = from, to }
