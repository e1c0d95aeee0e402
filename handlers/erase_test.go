package handlers_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// victim is a conversation to be erased; nothing else has its name in it.
const victim = "erase-me-7f3a"

// filesWith are the files below dir in which text is written.
func filesWith(t *testing.T, dir, text string) []string {
	t.Helper()
	var found []string
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err == nil && bytes.Contains(b, []byte(text)) {
			found = append(found, path)
		}
		return err
	}))
	return found
}

// erase erases one conversation of acme.
func erase(t *testing.T, b *bus.Bus, conversation string, o bus.EraseOptions) bus.EraseReport {
	t.Helper()
	plan, err := b.PlanErase(t.Context(), bus.EraseFilter{Tenant: tenant, Conversation: conversation})
	require.NoError(t, err)
	r, err := b.Erase(t.Context(), plan, o)
	require.NoError(t, err)
	return r
}

// traces is how much there is of a conversation of acme.
func traces(t *testing.T, b *bus.Bus, conversation string) int {
	t.Helper()
	plan, err := b.PlanErase(t.Context(), bus.EraseFilter{Tenant: tenant, Conversation: conversation})
	require.NoError(t, err)
	return plan.Messages()
}

func TestAnErasureUnderLoadIsProvenAndDisturbsNoOtherConversation(t *testing.T) {
	dir := t.TempDir()
	o := bus.Options{Embedded: embedded.Options{StoreDir: dir, Durability: embedded.Strict}}
	o.Streams.DuplicateWindow = bus.MinDuplicateWindow
	b, err := bus.Open(t.Context(), o)
	require.NoError(t, err)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("first", "c0", "ada", "PRIMARY"))
	w, err := handlers.Start(t.Context(), b, oncimevent.New(oncimevent.Options{}))
	require.NoError(t, err)
	tr := startTraffic(t, b, 11, 20, 2*time.Millisecond)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("v-j", victim, "ada", "PRIMARY"))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("v-k", victim, "ben", "ASSISTANT"))
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() { // it goes on while it is erased
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			case <-time.After(10 * time.Millisecond):
			}
			if _, err := b.JetStream().Publish(context.WithoutCancel(t.Context()), "cim.acme.web.AGENT_MESSAGE", message(fmt.Sprintf("v-%d", i), victim)); err != nil {
				done <- err
				return
			}
		}
	}()
	tr.sentMore(t, 300)
	plan, err := b.PlanErase(t.Context(), bus.EraseFilter{Tenant: tenant, Conversation: victim})
	require.NoError(t, err)
	require.Equal(t, []string{"ada", "ben"}, plan.Agents)
	require.Equal(t, []string{"ada", "ben"}, plan.Conversations[0].Members)
	_, err = b.Erase(t.Context(), plan, bus.EraseOptions{})
	require.ErrorIs(t, err, bus.ErrLive)
	require.Greater(t, traces(t, b, victim), 30, "nothing is deleted unless forced")

	erased := make(chan bus.EraseReport, 1)
	failed := make(chan error, 1)
	go func() {
		r, err := b.Erase(context.WithoutCancel(t.Context()), plan, bus.EraseOptions{Operator: "olga", Force: true, Wait: time.Minute})
		erased <- r
		failed <- err
	}()
	tr.sentMore(t, 50)
	close(stop)
	require.NoError(t, <-done)
	r := <-erased
	require.NoError(t, <-failed)
	require.True(t, r.Proven, "%+v", r)
	require.Empty(t, r.Plain)
	require.Equal(t, "olga", r.Operator)

	tr.end(t)
	drained(t, b)
	require.Zero(t, traces(t, b, victim))
	audit(t, b)
	require.NoError(t, w.Close(t.Context()))
	require.NoError(t, b.Close(t.Context()))
	for _, file := range filesWith(t, dir, victim) {
		// Earlier versions, which the server replaced, are not reached.
		require.Regexp(t, `/KV_CIM_(CONVERSATIONS|MEMBERS)/msgs/`, file)
	}
}

func TestNothingOfAnErasedConversationIsInTheStore(t *testing.T) {
	dir := t.TempDir()
	b, err := bus.Open(t.Context(), bus.Options{Embedded: embedded.Options{StoreDir: dir, Durability: embedded.Strict}})
	require.NoError(t, err)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("j", "c1", "ada", "PRIMARY"))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("v-j", victim, "ada", "PRIMARY"))
	h := oncimevent.New(oncimevent.Options{})
	inner := h.Handle
	h.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		if e.ID == "v-dead" {
			return nil, handlers.DeadLetter("refused", errors.New("as asked"))
		}
		return inner(ctx, e)
	}
	for _, id := range []string{"v-1", "v-dead", "v-2"} {
		publish(t, b, "cim.acme.web.AGENT_MESSAGE", message(id, victim))
	}
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("m", "c1"))
	// A conversation that only its header tells, and a task request outside of all conversations.
	_, err = b.JetStream().PublishMsg(t.Context(), &nats.Msg{
		Subject: "cim.acme.web.CUSTOMER_MESSAGE", Data: []byte(`{"id":"v-3","name":"CUSTOMER_MESSAGE"}`), Header: nats.Header{bus.HeaderConversation: {victim}},
	})
	require.NoError(t, err)
	for agent, conversation := range map[string]string{"ada": victim, "ben": "c1"} {
		_, err = b.JetStream().Publish(t.Context(), "cim-agent.acme."+agent+".taskRequest._", fmt.Appendf(nil, `{"taskId":"1","conversationId":%q}`, conversation))
		require.NoError(t, err)
	}
	worked(t, b, h)
	last := publish(t, b, "cim.acme._.AGENT_UNSUBSCRIBED", leave("v-l", victim, "ada"))
	letters, err := b.PlanRedrive(t.Context(), bus.DeadLetterFilter{Sequences: []uint64{1}})
	require.NoError(t, err)
	_, err = b.Redrive(t.Context(), letters, bus.RedriveOptions{Operator: "otto"})
	require.NoError(t, err)

	plan, err := b.PlanErase(t.Context(), bus.EraseFilter{Tenant: tenant, Conversation: victim})
	require.NoError(t, err)
	require.Equal(t, 7, plan.Conversations[0].Events)
	require.Equal(t, 2, plan.Conversations[0].Waiting)
	counts := map[string]int{}
	for _, c := range plan.Streams {
		counts[c.Stream] = c.Messages
	}
	require.Equal(t, map[string]int{
		bus.StreamEvents: 7, bus.StreamDeliveries: 5, bus.StreamIndex: 5, bus.StreamDeadLetters: 3, bus.StreamMembers: 1, bus.StreamConversations: 1,
	}, counts)
	require.Zero(t, plan.Mentions)
	r, err := b.Erase(t.Context(), plan, bus.EraseOptions{Force: true})
	require.NoError(t, err)
	require.True(t, r.Proven)
	require.Equal(t, last+1, r.Upto, "the redriven event was the last")
	require.Len(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ben.taskRequest._"), 1)

	require.NoError(t, b.Close(t.Context()))
	require.Empty(t, filesWith(t, dir, victim))

	b = openBusOn(t, bus.Options{Embedded: embedded.Options{StoreDir: dir, Durability: embedded.Strict}})
	start(t, b, oncimevent.New(oncimevent.Options{})) // its durable still counts what is gone
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("n", "c1"))
	drained(t, b)
	require.Len(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ada.onCimEvent.c1"), 3)
}

func TestAfterItsErasureAConversationBeginsAnewWithoutMembers(t *testing.T) {
	b := openStrict(t)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("f", "c1", "ada", "PRIMARY"))
	converse(t, b, "v", victim, "ada", 5)
	start(t, b, oncimevent.New(oncimevent.Options{})) // it keeps the conversation in memory
	drained(t, b)
	require.True(t, erase(t, b, victim, bus.EraseOptions{Force: true}).Proven)
	s := publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("n1", victim))
	drained(t, b)
	require.Empty(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.*.*."+victim))
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("n2", victim, "ben", "PRIMARY"))
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("n3", victim))
	drained(t, b)
	require.Len(t, stored(t, b, bus.StreamDeliveries, "cim-agent.acme.ben.onCimEvent."+victim), 2)
	require.Equal(t, s, bus.SequenceOf(stored(t, b, bus.StreamIndex, "cim-index.acme."+victim)[0].Header))
	audit(t, b)
}

func TestWhatAWorkerHoldsInMemoryOfAnErasedConversationIsNotWrittenDown(t *testing.T) {
	b := openStrict(t)
	start(t, b, oncimevent.New(oncimevent.Options{}))
	converse(t, b, "v", victim, "ada", 5)
	drained(t, b)
	require.True(t, erase(t, b, victim, bus.EraseOptions{Force: true}).Proven)
	elapse(4 * time.Second) // by now the checkpoint of a quiet conversation is written
	require.Zero(t, traces(t, b, victim))
}

func TestACustomersConversationsAreFoundByEventsAndCheckpoints(t *testing.T) {
	b := openStrict(t)
	session := `"channelSession":{"id":"s1","customer":{"_id":%q,"firstName":"Ada"}}`
	talk := func(id, conversation, customer string) uint64 {
		return publish(t, b, "cim.acme.web.CUSTOMER_MESSAGE", fmt.Appendf(nil,
			`{"id":%q,"name":"CUSTOMER_MESSAGE","conversationId":%q,`+session+`}`, id, conversation, customer))
	}
	talk("1", "c0", "somebody else")
	first := talk("2", "c1", "cust-1")
	talk("3", "c2", "cust-1")
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", message("4", "c2")) // which does not name the customer
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", []byte(`{"id":"5","name":"AGENT_MESSAGE","conversationId":"c3","data":{"text":"cust-1","note":["cust-1"]}}`))
	_, err := b.JetStream().Publish(t.Context(), "cim.other.web.CUSTOMER_MESSAGE", fmt.Appendf(nil, `{"id":"6","name":"CUSTOMER_MESSAGE","conversationId":"c1",`+session+`}`, "cust-1"))
	require.NoError(t, err)
	publish(t, b, "cim.acme.web.AGENT_MESSAGE", []byte(`{"broken`))
	worked(t, b, oncimevent.New(oncimevent.Options{}))
	stream, err := b.JetStream().Stream(t.Context(), bus.StreamEvents)
	require.NoError(t, err)
	require.NoError(t, stream.DeleteMsg(t.Context(), first)) // as if it had expired: the checkpoint is left

	plan, err := b.PlanErase(t.Context(), bus.EraseFilter{Tenant: tenant, Customer: "cust-1"})
	require.NoError(t, err)
	var names []string
	for _, c := range plan.Conversations {
		names = append(names, c.Conversation)
	}
	require.Equal(t, []string{"c1", "c2"}, names)
	require.Equal(t, []uint64{5}, plan.Mentions, "another conversation's event has the id in it")
	require.Equal(t, 1, plan.Unattributed)
	r, err := b.Erase(t.Context(), plan, bus.EraseOptions{})
	require.NoError(t, err)
	require.True(t, r.Proven)
	for _, left := range stored(t, b, bus.StreamEvents, ">") {
		require.False(t, strings.HasPrefix(left.Subject, "cim.acme.") && bytes.Contains(left.Data, []byte(`"_id":"cust-1"`)))
	}
	require.Len(t, stored(t, b, bus.StreamEvents, "cim.other.>"), 1)
}

// A handler that is at work on an event of before may write something of it yet.
func TestNoErasureIsProvenWhileAHandlerHoldsAnEventOfTheConversation(t *testing.T) {
	b := openStrict(t)
	publish(t, b, "cim.acme._.AGENT_SUBSCRIBED", join("f", "c1", "ada", "PRIMARY"))
	converse(t, b, "v", victim, "ada", 3)
	release, inHand := make(chan struct{}), make(chan struct{}, 100)
	h := oncimevent.New(oncimevent.Options{})
	inner := h.Handle
	h.Handle = func(ctx context.Context, e handlers.Event) ([]handlers.Delivery, error) {
		if e.ID == "v1" {
			inHand <- struct{}{}
			select {
			case <-release:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return inner(ctx, e)
	}
	start(t, b, h)
	<-inHand
	r := erase(t, b, victim, bus.EraseOptions{Force: true, Wait: 100 * time.Millisecond})
	require.False(t, r.Proven)
	require.Contains(t, r.Problem, "handler onCimEvent is still at work on events of it")
	require.NotEmpty(t, stored(t, b, bus.StreamEvents, "cim.acme.>"), "what is in hand stays known")
	close(release)
	require.True(t, erase(t, b, victim, bus.EraseOptions{Force: true, Wait: time.Minute}).Proven)
	require.Zero(t, traces(t, b, victim))
	drained(t, b)
	audit(t, b)
}

func TestACustomerIsFoundHoweverItsIDIsWritten(t *testing.T) {
	b := openStrict(t)
	for id, customer := range map[string]string{
		"1": `"customer":{"_id":"6601"}`, "2": `"customer":{"id":6601}`, "3": `"customerId":"\u0036601"`, "4": `"data":{"customer":"6601"}`,
		"5": `"customer":{"_id":"66010"}`, "6": `"customer":{"_id":66.01}`, "7": `"data":{"amount":6601}`,
	} {
		publish(t, b, "cim.acme.web.CUSTOMER_MESSAGE", fmt.Appendf(nil, `{"id":%q,"name":"CUSTOMER_MESSAGE","conversationId":"c%s",%s}`, id, id, customer))
	}
	plan, err := b.PlanErase(t.Context(), bus.EraseFilter{Tenant: tenant, Customer: "6601"})
	require.NoError(t, err)
	var names []string
	for _, c := range plan.Conversations {
		names = append(names, c.Conversation)
	}
	require.Equal(t, []string{"c1", "c2", "c3", "c4"}, names)
}
