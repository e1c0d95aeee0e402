package handlers_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/conversation"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

func allStreams() []string {
	return []string{bus.StreamEvents, bus.StreamDeliveries, bus.StreamIndex, bus.StreamDeadLetters, bus.StreamMembers, bus.StreamConversations}
}

// converse makes an agent a member of a conversation and publishes n messages to it.
func converse(t *testing.T, b *bus.Bus, prefix, conversation, agent string, n int) {
	t.Helper()
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join(prefix+"j", conversation, agent, "PRIMARY"))
	for i := range n {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprintf("%s%d", prefix, i), conversation))
	}
}

func TestWhatAWorkerRemembersOfADeletedCIM_EVENTSDoesNotHideTheNewOnesEvents(t *testing.T) {
	for name, standby := range map[string]bool{"the worker that acted": false, "a standby": true} {
		t.Run(name, func(t *testing.T) {
			b := openBus(t)
			first := start(t, b, oncimevent.New(oncimevent.Options{}))
			converse(t, b, "m", "c1", "ada", 100)
			drained(t, b)
			if standby {
				start(t, b, oncimevent.New(oncimevent.Options{}))
			}
			for _, s := range allStreams() {
				require.NoError(t, b.JetStream().DeleteStream(t.Context(), s))
			}
			bustest.Eventually(t, 30*time.Second, func() error { // the workers do it, too
				_, err := b.MendStreams(t.Context())
				return err
			})
			bustest.Eventually(t, 30*time.Second, func() error {
				_, err := b.JetStream().Consumer(t.Context(), bus.StreamEvents, "handler-"+oncimevent.Name)
				return err
			})
			converse(t, b, "n", "d1", "ben", 10)
			drained(t, b)
			if standby {
				require.NoError(t, first.Close(t.Context()))
			}
			for i := range 10 {
				publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprintf("o%d", i), "d1"))
			}
			drained(t, b)
			require.Len(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ben.>"), 21)
		})
	}
}

func TestNoDeliveryOfBeforePassesForOneOfANewCIM_EVENTS(t *testing.T) {
	b := openBus(t)
	converse(t, b, "m", "c1", "ada", 30)
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	_, err := b.JetStream().Publish(t.Context(), "cim-agent.acme.ada.agentPresence._", []byte(`{}`)) // names no event
	require.NoError(t, err)
	before := len(stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ada.onCimEvent.>"))
	deleted(t, b, bus.StreamEvents, bus.StreamIndex, bus.StreamDeadLetters, bus.StreamMembers, bus.StreamConversations)
	converse(t, b, "n", "c1", "ada", 10)
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	require.Len(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ada.onCimEvent.>"), before+11)
}

// oldCopy puts an empty stream where CIM_EVENTS was, as `nats stream restore` of an old copy does: it begins at 1 again.
func oldCopy(t *testing.T, b *bus.Bus) {
	t.Helper()
	stream, err := b.JetStream().Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	require.NoError(t, b.JetStream().DeleteStream(t.Context(), bus.StreamEvents))
	_, err = b.JetStream().CreateStream(t.Context(), stream.CachedInfo().Config)
	require.NoError(t, err)
}

// watched is a bus whose log can be read.
func watched(t *testing.T) (*bus.Bus, *bustest.Buffer) {
	t.Helper()
	log := &bustest.Buffer{}
	return openBusOn(t, bus.Options{
		Embedded: embedded.Options{StoreDir: t.TempDir(), Durability: embedded.Balanced, Logger: hclog.NewNullLogger()},
		Logger:   hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Warn}),
	}), log
}

func told(t *testing.T, log *bustest.Buffer, words string) {
	t.Helper()
	bustest.Eventually(t, 30*time.Second, func() error {
		if !strings.Contains(log.String(), words) {
			return fmt.Errorf("not told: %s", log.String())
		}
		return nil
	})
}

func TestAnEventOfAnotherTenantIsNeverFoldedFromAnOldCopyOfCIM_EVENTS(t *testing.T) {
	b, log := watched(t)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j1", "c1", "ada", "PRIMARY"))
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	oldCopy(t, b)
	publish(t, b, "cim.evil._.AGENT_SUBSCRIBED", join("e1", "x1", "mallory", "PRIMARY"))
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("secret", "c1"))
	start(t, b, oncimevent.New(oncimevent.Options{}))
	told(t, log, "CIM_EVENTS gives out sequences again")
	require.Empty(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.mallory.>"))
}

// Whoever deletes what disagrees with an old copy while the worker runs, one stream after the other, loses no event by it.
func TestAFenceOfAnotherCIM_EVENTSIsNotTrusted(t *testing.T) {
	b, log := watched(t)
	converse(t, b, "m", "c1", "ada", 30)
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	oldCopy(t, b)
	converse(t, b, "n", "c1", "ada", 1)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	told(t, log, "CIM_EVENTS gives out sequences again")
	for _, s := range []string{bus.StreamIndex, bus.StreamDeliveries, bus.StreamDeadLetters, bus.StreamMembers, bus.StreamConversations} {
		require.NoError(t, b.JetStream().DeleteStream(t.Context(), s))
		back(t, b, s)
		elapse(time.Second) // an operator types
	}
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("after", "c1"))
	drained(t, b)
	require.Len(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ada.onCimEvent.c1"), 3)
}

func TestMembersWhoseJoiningHasExpiredStayMembersWhenEventsAreDoneAgainBehindACheckpoint(t *testing.T) {
	b := openStrict(t)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j1", "c1", "ada", "PRIMARY"))
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	h := oncimevent.New(oncimevent.Options{})
	inner, release := h.Handle, make(chan struct{})
	h.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		if e.ID == "stuck" {
			select {
			case <-release:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return inner(ctx, e)
	}
	stream, err := b.JetStream().Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	require.NoError(t, stream.DeleteMsg(t.Context(), 1)) // as if it had expired
	w := start(t, b, h)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("stuck", "c2"))
	for i := range 5 {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprintf("m%d", i), "c1"))
	}
	bustest.Eventually(t, 30*time.Second, func() error {
		for _, m := range stored(t, b, bus.StreamConversations, ">") {
			if bus.SequenceOf(m.Header) == 7 {
				return nil
			}
		}
		return fmt.Errorf("no checkpoint of event 7")
	})
	epochs := w.Stats().Epochs
	deleted(t, b, bus.StreamIndex)
	bustest.Eventually(t, 30*time.Second, func() error {
		if w.Stats().Epochs == epochs {
			return fmt.Errorf("the epoch goes on")
		}
		return nil
	})
	for i := range 5 {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprintf("n%d", i), "c1"))
	}
	close(release)
	drained(t, b)
	require.Len(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ada.onCimEvent.c1"), 11)
}

func TestAPartlyWrittenIndexDoesNotPassForTheWholeOne(t *testing.T) {
	b := openBus(t)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j1", "c1", "ada", "PRIMARY"))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j2", "c1", "ben", "PRIMARY"))
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	before := stored(t, b, bus.StreamIndex, ">")
	start(t, b, oncimevent.New(oncimevent.Options{}))
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m1", "c2"))
	drained(t, b)
	// Another process has the work and is at the first entry of its rebuild; this one does not know yet.
	deleted(t, b, bus.StreamIndex)
	_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: before[0].Subject, Header: nats.Header{
		bus.HeaderSequence: before[0].Header[bus.HeaderSequence], bus.HeaderSourceTime: before[0].Header[bus.HeaderSourceTime],
	}})
	require.NoError(t, err)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m2", "c1"))
	drained(t, b)
	writtenAgain(t, b, bus.StreamIndex)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m3", "c1"))
	drained(t, b)
	audit(t, b)
}

func TestAStateOfWhichAPartWasReadWhenTheIndexWasDeletedIsNotUsed(t *testing.T) {
	b := openStrict(t)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j1", "c1", "ada", "PRIMARY"))
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	before := stored(t, b, bus.StreamConversations, ">")
	publish(t, b, "cim.acme._.AGENT_UNSUBSCRIBED", leave("l1", "c1", "ada"))
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	putBack(t, b, before)
	h := oncimevent.New(oncimevent.Options{})
	var deleting sync.Once
	failed := make(chan error, 1)
	h.NewState = func(tenant, id string) handlers.State {
		if id == "c1" {
			deleting.Do(func() { // the index was asked for the last entry, and not yet for those before
				err := b.JetStream().DeleteStream(t.Context(), bus.StreamIndex)
				_, mended := b.MendStreams(t.Context())
				failed <- errors.Join(err, mended)
			})
		}
		return conversation.New(tenant, id)
	}
	start(t, b, h)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m1", "c1"))
	require.NoError(t, <-failed)
	drained(t, b)
	audit(t, b)
}

func TestTheChannelIsKeptInARebuildThatIsGoneOnWith(t *testing.T) {
	b := openBus(t)
	converse(t, b, "m", "c1", "ada", 1)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j2", "c1", "ben", "PRIMARY"))
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	before := stored(t, b, bus.StreamIndex, ">")
	deleted(t, b, bus.StreamIndex)
	for _, m := range before[:2] {
		_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: m.Subject, Header: nats.Header{
			bus.HeaderSequence: m.Header[bus.HeaderSequence], bus.HeaderSourceTime: m.Header[bus.HeaderSourceTime],
			bus.HeaderChannel: m.Header[bus.HeaderChannel],
		}})
		require.NoError(t, err)
	}
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("x", "c9")) // begins the work
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	last, err := b.LastMessage(t.Context(), bus.StreamIndex, "cim-index.acme.c1")
	require.NoError(t, err)
	require.Equal(t, "web", bus.LastHeader(last.Header, bus.HeaderChannel))
}

func TestAnEventRedrivenForAnotherHandlerIsNotDeliveredTwiceWhenTheDeadLettersAreDeleted(t *testing.T) {
	b := openBus(t)
	converse(t, b, "m", "c1", "ada", 1)
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	var of uint64
	for i := range 7 {
		ack, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{
			Subject: fmt.Sprintf("cim-dead.crm.acme.web.AGENT_MESSAGE.%d", i+1), Header: nats.Header{bus.HeaderHandler: []string{"crm"}},
		})
		require.NoError(t, err)
		of = ack.Sequence
	}
	_, err := b.JetStream().PublishMsg(t.Context(), &nats.Msg{Subject: "cim.acme.web.AGENT_MESSAGE", Data: message("m0", "c1"), Header: nats.Header{
		bus.HeaderRedriveOf: []string{fmt.Sprint(of)}, bus.HeaderRedriveHandler: []string{"crm"},
	}})
	require.NoError(t, err)
	deleted(t, b, bus.StreamDeadLetters)
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	require.Len(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ada.onCimEvent.c1"), 2)
}

func TestAStandbyThatMakesTheDurableAgainKnowsWhichIndexWasWhole(t *testing.T) {
	b := openBus(t)
	first := start(t, b, oncimevent.New(oncimevent.Options{}))
	converse(t, b, "m", "c1", "ada", 3)
	drained(t, b)
	start(t, b, oncimevent.New(oncimevent.Options{})) // stands by
	require.NoError(t, first.Close(t.Context()))
	deliveries, err := b.JetStream().Stream(t.Context(), bus.StreamDeliveries)
	require.NoError(t, err)
	require.NoError(t, deliveries.Purge(t.Context())) // as after 72 hours
	require.NoError(t, b.JetStream().DeleteStream(t.Context(), bus.StreamIndex))
	require.NoError(t, b.JetStream().DeleteConsumer(t.Context(), bus.StreamEvents, "handler-"+oncimevent.Name))
	_, err = b.MendStreams(t.Context())
	require.NoError(t, err)
	bustest.Eventually(t, 30*time.Second, func() error {
		_, err := b.JetStream().Consumer(t.Context(), bus.StreamEvents, "handler-"+oncimevent.Name)
		return err
	})
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("x", "c2"))
	drained(t, b)
	require.Empty(t, stored(t, b, bus.StreamDeliveries, ">"), "delivered again")
}

// limited opens a second bus on a server as a user who may do everything but one thing.
func limited(t *testing.T, deny ...string) (whole, part *bus.Bus, log *bustest.Buffer) {
	t.Helper()
	whole = openBusOn(t, bus.Options{Embedded: embedded.Options{
		StoreDir: t.TempDir(), Durability: embedded.Balanced, NATSAddr: "127.0.0.1:0",
		Configure: func(o *server.Options) {
			o.NoAuthUser = "admin"
			o.Users = []*server.User{{Username: "admin", Password: "a"}, {
				Username: "worker", Password: "w",
				Permissions: &server.Permissions{Publish: &server.SubjectPermission{Allow: []string{">"}, Deny: deny}},
			}}
		},
	}})
	worked(t, whole, oncimevent.New(oncimevent.Options{}))
	log = &bustest.Buffer{}
	part = openBusOn(t, bus.Options{
		URL: whole.Server().NATSURL(), LeaveStreams: true, NATS: []nats.Option{nats.UserInfo("worker", "w")},
		Logger: hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Warn}),
	})
	return whole, part, log
}

func TestAUserWhoMayNotUpdateConsumersWorksAllTheSame(t *testing.T) {
	b, part, log := limited(t, "$JS.API.STREAM.CREATE.>", "$JS.API.STREAM.UPDATE.>", "$JS.API.CONSUMER.CREATE.>", "$JS.API.CONSUMER.DURABLE.>")
	c, err := b.JetStream().Consumer(t.Context(), bus.StreamEvents, "handler-"+oncimevent.Name)
	require.NoError(t, err)
	config := c.CachedInfo().Config
	config.Metadata = nil // nothing is noted yet
	_, err = b.JetStream().UpdateConsumer(t.Context(), bus.StreamEvents, config)
	require.NoError(t, err)
	start(t, part, oncimevent.New(oncimevent.Options{}))
	converse(t, b, "m", "c1", "ada", 3)
	drained(t, b)
	audit(t, b)
	told(t, log, "the right to update consumers")
}

func TestWhateverKeepsAWorkerFromWorkingIsInTheLog(t *testing.T) {
	b, part, log := limited(t, "$JS.API.CONSUMER.RESET.>")
	start(t, part, oncimevent.New(oncimevent.Options{}))
	converse(t, b, "m", "c1", "ada", 1)
	told(t, log, "reset consumer")
}

func TestAStreamThatCannotBeMadeAgainIsTold(t *testing.T) {
	b := openBus(t)
	s, err := b.JetStream().Stream(t.Context(), bus.StreamIndex)
	require.NoError(t, err)
	config := s.CachedInfo().Config
	require.NoError(t, b.JetStream().DeleteStream(t.Context(), bus.StreamIndex))
	config.Name = "OTHER"
	_, err = b.JetStream().CreateStream(t.Context(), config)
	require.NoError(t, err)
	_, err = b.MendStreams(t.Context())
	var refused *bus.PlanError
	require.ErrorAs(t, err, &refused)
	require.ErrorContains(t, err, "OTHER")
}
