package handlers_test

import (
	"fmt"
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
