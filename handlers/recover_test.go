package handlers_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// powerCut ends a bus and gives its store back as a power cut leaves it in balanced durability: each of the named streams as it
// was when lost was called, the others as they are now, and no word of a shutdown.
type powerCut struct {
	t     *testing.T
	dir   string
	saved string
}

func newPowerCut(t *testing.T) *powerCut {
	t.Helper()
	return &powerCut{t: t, dir: t.TempDir(), saved: t.TempDir()}
}

func (p *powerCut) open() *bus.Bus {
	p.t.Helper()
	return openBusOn(p.t, bus.Options{Embedded: embedded.Options{StoreDir: p.dir, Durability: embedded.Balanced}})
}

// stop shuts the bus down, so that everything is in the files.
func (p *powerCut) stop(b *bus.Bus) {
	p.t.Helper()
	require.NoError(p.t, b.Close(context.WithoutCancel(p.t.Context())))
}

func (p *powerCut) save() {
	p.t.Helper()
	require.NoError(p.t, os.RemoveAll(p.saved))
	require.NoError(p.t, os.CopyFS(p.saved, os.DirFS(p.dir)))
}

// lose puts streams back to what they were when they were saved, and takes the mark of the shutdown away.
func (p *powerCut) lose(streams ...string) {
	p.t.Helper()
	for _, name := range streams {
		dir := filepath.Join("jetstream", "$G", "streams", name)
		require.NoError(p.t, os.RemoveAll(filepath.Join(p.dir, dir)))
		require.NoError(p.t, os.CopyFS(filepath.Join(p.dir, dir), os.DirFS(filepath.Join(p.saved, dir))))
	}
	clean, err := filepath.Glob(filepath.Join(p.dir, "*clean*"))
	require.NoError(p.t, err)
	require.NotEmpty(p.t, clean)
	for _, file := range clean {
		require.NoError(p.t, os.Remove(file))
	}
}

func TestPowerCutInBalancedLeavesTheStreamsAgreeing(t *testing.T) {
	everything := []string{
		bus.StreamEvents, bus.StreamDeliveries, bus.StreamIndex, bus.StreamDeadLetters, bus.StreamMembers, bus.StreamConversations,
	}
	cases := map[string][]string{"nothing": nil, "all alike": everything}
	for _, name := range everything {
		cases["only "+name] = []string{name}
		var others []string
		for _, o := range everything {
			if o != name {
				others = append(others, o)
			}
		}
		cases["all but "+name] = others
	}
	for name, lost := range cases {
		t.Run(name, func(t *testing.T) {
			p := newPowerCut(t)
			b := p.open()
			h := oncimevent.New(oncimevent.Options{})
			round := func(b *bus.Bus, first, last int) {
				w := start(t, b, h)
				for i := first; i < last; i++ {
					id, conversation := fmt.Sprint(i), fmt.Sprintf("c%d", i%3)
					switch i % 7 {
					case 0:
						publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join(id, conversation, "ada", "PRIMARY"))
					case 3:
						publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join(id, conversation, "ben", fmt.Sprint("ROLE-", i)))
					case 5:
						publish(t, b, "cim.acme._.AGENT_UNSUBSCRIBED", leave(id, conversation, "ada"))
					case 6:
						publish(t, b, "cim.acme.web.AGENT_MESSAGE", []byte(`{"broken`))
					default:
						publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(id, conversation))
					}
				}
				drained(t, b)
				require.NoError(t, w.Close(t.Context()))
			}
			round(b, 0, 40)
			p.stop(b)
			p.save()
			b = p.open()
			round(b, 40, 60)
			p.stop(b)
			p.lose(lost...)

			// Sequences of events that were lost are given out again.
			b = p.open()
			round(b, 60, 100)
			audit(t, b)
			p.stop(b)
			b = p.open()
			round(b, 100, 110)
			audit(t, b)
		})
	}
}
