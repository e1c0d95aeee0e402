package handlers_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// Whether to make good what a power cut took was decided by the durability of the new start, not by that of the run that was cut.
func TestPowerCutInBalancedIsMadeGoodByAStartInStrict(t *testing.T) {
	p := newPowerCut(t)
	round := func(b *bus.Bus, first, last int) {
		w := start(t, b, oncimevent.New(oncimevent.Options{}))
		publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join(fmt.Sprint("j", first), "c1", "ada", "PRIMARY"))
		for i := first; i < last; i++ {
			publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprint(i), fmt.Sprintf("c%d", i%3)))
		}
		drained(t, b)
		require.NoError(t, w.Close(t.Context()))
	}
	b := p.open()
	round(b, 0, 20)
	p.stop(b)
	p.save()
	b = p.open()
	round(b, 20, 30)
	p.stop(b)
	p.lose(bus.StreamEvents)

	b = openBusOn(t, bus.Options{Embedded: embedded.Options{StoreDir: p.dir, Durability: embedded.Strict}})
	round(b, 30, 40)
	audit(t, b)
}

// A power cut in balanced durability may leave any part of a consumer's state. The server then recovered the consumer no more, and refused
// to create it, so the daemon did not start.
func TestPowerCutThatTearsTheConsumersStateLosesAndRepeatsNothing(t *testing.T) {
	p := newPowerCut(t)
	b := p.open()
	w := start(t, b, oncimevent.New(oncimevent.Options{}))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	for i := range 20 {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprint(i), "c1"))
	}
	drained(t, b)
	require.NoError(t, w.Close(t.Context()))
	p.stop(b)
	cut := func() { require.NoError(t, os.RemoveAll(filepath.Join(p.dir, "cimbus.clean"))) }
	cut()
	path := filepath.Join(p.dir, "jetstream", "$G", "streams", bus.StreamEvents, "obs", "handler-"+oncimevent.Name, "o.dat")
	state, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NotEmpty(t, state)
	for left := range state {
		if left > 8 && left < len(state)-2 {
			continue
		}
		require.NoError(t, os.WriteFile(path, state[:left], 0o600))
		b = p.open()
		w = start(t, b, oncimevent.New(oncimevent.Options{}))
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprint("after-", left), "c1"))
		drained(t, b)
		require.NoError(t, w.Close(t.Context()))
		audit(t, b)
		p.stop(b)
		cut()
	}
}
