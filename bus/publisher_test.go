package bus_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

func newPublisher(t testing.TB, b *bus.Bus, o bus.PublisherOptions) *bus.Publisher {
	t.Helper()
	p, err := b.NewPublisher(o)
	require.NoError(t, err)
	t.Cleanup(func() { closePublisher(t, p, patience) })
	return p
}

// closePublisher closes within a time; that there was not enough to flush is not a failure here.
func closePublisher(t testing.TB, p *bus.Publisher, within time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), within)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
}

// load is a number of events of some conversations, published in turn, with what became of each.
type load struct {
	conversations int
	events        []bus.Event
	pending       []*bus.Pending
}

func newLoad(t testing.TB, events, conversations int) *load {
	t.Helper()
	l := &load{conversations: conversations}
	for i := range events {
		l.events = append(l.events, event(t, fmt.Sprintf("e%06d", i), fmt.Sprintf("c%d", i%conversations)))
	}
	return l
}

// publish publishes everything, calling half once in the middle.
func (l *load) publish(t testing.TB, p *bus.Publisher, half func()) {
	t.Helper()
	for i, e := range l.events {
		if i == len(l.events)/2 && half != nil {
			half()
		}
		q, err := p.Publish(t.Context(), e)
		require.NoError(t, err)
		l.pending = append(l.pending, q)
	}
}

// account holds the outcomes against the stream: what was acknowledged is stored where the receipt says; nothing is stored twice; the
// events of a conversation are stored in order. It returns how many had which outcome.
func (l *load) account(t testing.TB, b *bus.Bus) (acknowledged, unknown, refused int) {
	t.Helper()
	stored := map[string]uint64{} // sequence by event id
	last := map[string]string{}   // last id by conversation
	for m, err := range b.Read(t.Context(), bus.Range{Stream: bus.StreamEvents}) {
		require.NoError(t, err)
		id, conversation := m.Header.Get(bus.HeaderEventID), m.Header.Get(bus.HeaderConversation)
		require.NotContains(t, stored, id, "stored twice")
		require.Less(t, last[conversation], id, "out of order in %s", conversation)
		stored[id], last[conversation] = m.Sequence, id
	}
	for i, q := range l.pending {
		receipt, err := q.Receipt()
		id := l.events[i].ID
		switch {
		case err == nil:
			acknowledged++
			require.Equal(t, stored[id], receipt.Sequence, "%s was acknowledged", id)
		case errors.Is(err, bus.ErrUnknownOutcome):
			unknown++
		default:
			refused++
			require.NotContains(t, stored, id, "stored though: %v", err)
		}
	}
	return acknowledged, unknown, refused
}

func TestEveryPublishedEventIsStoredOnceInOrderAndAcknowledged(t *testing.T) {
	for _, conversations := range []int{1, 7, 1000} {
		t.Run(fmt.Sprint(conversations, " conversations"), func(t *testing.T) {
			b := testBus(t, bus.StreamOptions{})
			p := newPublisher(t, b, bus.PublisherOptions{MaxPending: 500})
			l := newLoad(t, 3000, conversations)
			l.publish(t, p, nil)
			require.NoError(t, p.Close(t.Context()))
			acknowledged, _, _ := l.account(t, b)
			require.Equal(t, len(l.events), acknowledged)
		})
	}
}

func TestTwoPublishingAtOnceEachKeepTheirOrder(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	p := newPublisher(t, b, bus.PublisherOptions{MaxPending: 50})
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := range 300 {
				e := event(t, fmt.Sprintf("w%d-%06d", w, i), fmt.Sprintf("c%d", w))
				_, err := p.Publish(t.Context(), e)
				require.NoError(t, err)
			}
		})
	}
	writers.Wait()
	require.NoError(t, p.Close(t.Context()))
	l := &load{}
	l.account(t, b)
}

// proxied opens a bus through a proxy to a server of its own.
func proxied(t testing.TB, o bus.StreamOptions) (*bus.Bus, *bustest.Proxy) {
	t.Helper()
	s := bustest.Server(t, listening)
	proxy := bustest.NewProxy(t, s.NATSURL())
	return openOn(t, reconnecting(t, proxy.URL()), o), proxy
}

func reconnecting(t testing.TB, url string) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, nats.MaxReconnects(-1), nats.ReconnectWait(20*time.Millisecond), nats.ReconnectJitter(0, 0),
		nats.ErrorHandler(func(*nats.Conn, *nats.Subscription, error) {}))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	return nc
}

func TestCutConnectionsLoseRepeatAndReorderNothing(t *testing.T) {
	b, proxy := proxied(t, bus.StreamOptions{})
	p := newPublisher(t, b, bus.PublisherOptions{MaxPending: 300})
	l := newLoad(t, 6000, 20)
	stop, cutter := make(chan struct{}), sync.WaitGroup{}
	cutter.Go(func() {
		tick := time.NewTicker(150 * time.Millisecond)
		defer tick.Stop()
		for range 8 {
			select {
			case <-stop:
				return
			case <-tick.C:
				proxy.Cut()
			}
		}
	})
	l.publish(t, p, func() { proxy.Cut() })
	require.NoError(t, p.Close(t.Context()))
	close(stop)
	cutter.Wait()
	acknowledged, _, _ := l.account(t, b)
	require.Equal(t, len(l.events), acknowledged)
	for _, q := range l.pending {
		receipt, err := q.Receipt()
		require.NoError(t, err)
		require.False(t, receipt.Duplicate, "a try of its own is no duplicate")
	}
}

func TestAnOutageShorterThanTheRetriesCostsNothing(t *testing.T) {
	b, proxy := proxied(t, bus.StreamOptions{})
	p := newPublisher(t, b, bus.PublisherOptions{MaxPending: 100})
	l := newLoad(t, 1000, 10)
	var up sync.WaitGroup
	l.publish(t, p, func() {
		proxy.Down()
		up.Go(func() {
			defer proxy.Up()
			assert.Eventually(t, func() bool { return proxy.Refused() >= 10 }, patience, time.Millisecond, "many attempts to connect")
		})
	})
	up.Wait()
	require.NoError(t, p.Close(t.Context()))
	acknowledged, _, _ := l.account(t, b)
	require.Equal(t, len(l.events), acknowledged)
}

func TestAServerKilledInTheMiddleOfPublishingCostsNothing(t *testing.T) {
	s := bustest.Process(t)
	b := openOn(t, reconnecting(t, s.URL()), bus.StreamOptions{})
	p := newPublisher(t, b, bus.PublisherOptions{MaxPending: 1000})
	l := newLoad(t, 10000, 50)
	l.publish(t, p, s.Restart)
	require.NoError(t, p.Close(t.Context()))
	acknowledged, _, _ := l.account(t, b)
	require.Equal(t, len(l.events), acknowledged)
}

func TestAFrozenServerCostsNothing(t *testing.T) {
	s := bustest.Process(t)
	b := openOn(t, reconnecting(t, s.URL()), bus.StreamOptions{})
	p := newPublisher(t, b, bus.PublisherOptions{MaxPending: 500, AckWait: 200 * time.Millisecond})
	l := newLoad(t, 3000, 20)
	var thawed sync.WaitGroup
	l.publish(t, p, func() {
		s.Freeze()
		// Each of the 20 conversations has one event on its way; what is more was sent again.
		again := b.Conn().Stats().OutMsgs + 3*20
		thawed.Go(func() {
			defer s.Thaw()
			assert.Eventually(t, func() bool { return b.Conn().Stats().OutMsgs >= again }, patience, time.Millisecond, "events are sent again")
		})
	})
	thawed.Wait()
	require.NoError(t, p.Close(t.Context()))
	acknowledged, _, _ := l.account(t, b)
	require.Equal(t, len(l.events), acknowledged, "sent again and again, stored once")
}

func TestChangesOfLeaderLoseRepeatAndReorderNothing(t *testing.T) {
	c := bustest.Cluster(t, 3)
	nc, err := c.Connect(nats.MaxReconnects(-1))
	require.NoError(t, err)
	t.Cleanup(nc.Close)
	b := openOn(t, nc, bus.StreamOptions{})
	require.Equal(t, 3, streamConfig(t, b, bus.StreamEvents).Replicas)
	p := newPublisher(t, b, bus.PublisherOptions{MaxPending: 300, AckWait: time.Second})
	l := newLoad(t, 3000, 20)
	stepDown := func() {
		_, err := nc.Request("$JS.API.STREAM.LEADER.STEPDOWN."+bus.StreamEvents, nil, 10*time.Second)
		require.NoError(t, err)
	}
	var other sync.WaitGroup
	other.Go(func() { stepDown() })
	l.publish(t, p, stepDown)
	other.Wait()
	require.NoError(t, p.Close(t.Context()))
	acknowledged, _, _ := l.account(t, b)
	require.Equal(t, len(l.events), acknowledged)
}

func TestWithoutADuplicateWindowTheOutcomeIsUnknownRatherThanAnEventStoredTwice(t *testing.T) {
	b, proxy := proxied(t, bus.StreamOptions{DuplicateWindow: bus.MinDuplicateWindow})
	p := newPublisher(t, b, bus.PublisherOptions{MaxPending: 300, RetryFor: 500 * time.Millisecond})
	l := newLoad(t, 3000, 20)
	var sent uint64
	for i, e := range l.events {
		switch i {
		case len(l.events)/2 - 20:
			proxy.Stall() // so that something is on its way when the connection breaks, however fast the server answers
			sent = b.Conn().Stats().OutMsgs
		case len(l.events) / 2:
			bustest.Eventually(t, 10*time.Second, func() error {
				left, err := b.Conn().Buffered()
				if err == nil && (left > 0 || b.Conn().Stats().OutMsgs == sent) {
					err = fmt.Errorf("nothing on its way, %d bytes buffered", left)
				}
				return err
			})
			proxy.Down()
			// The outage must outlast the duplicate window, and no sign tells when the server's is over: the time itself is the case.
			<-time.After(2 * bus.MinDuplicateWindow)
			proxy.Flow()
			proxy.Up()
		}
		q, err := p.Publish(t.Context(), e)
		require.NoError(t, err)
		l.pending = append(l.pending, q)
	}
	require.NoError(t, p.Close(t.Context()))
	acknowledged, unknown, refused := l.account(t, b)
	require.Zero(t, refused)
	require.Positive(t, unknown)
	require.Greater(t, acknowledged, len(l.events)/2, "what was not on its way goes on afterwards")
}

func TestAFullStreamRefusesEventByEventAndStoresWhatItAcknowledges(t *testing.T) {
	b := testBus(t, bus.StreamOptions{MaxBytes: 200_000})
	p := newPublisher(t, b, bus.PublisherOptions{})
	l := newLoad(t, 1000, 20)
	l.publish(t, p, nil)
	require.NoError(t, p.Flush(t.Context()))
	acknowledged, unknown, refused := l.account(t, b)
	require.Positive(t, acknowledged)
	require.Positive(t, refused)
	require.Zero(t, unknown)
	_, err := l.pending[len(l.pending)-1].Receipt()
	require.ErrorIs(t, err, bus.ErrStoreFull)
}

func TestARefusedEventHoldsUpNobody(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	p := newPublisher(t, b, bus.PublisherOptions{})
	large, err := bus.NewEvent("acme", fmt.Appendf(nil, `{"id":"e0","name":"X","conversationId":"c0","data":%q}`, strings.Repeat("x", 2<<20)))
	require.NoError(t, err)
	refused, err := p.Publish(t.Context(), large)
	require.NoError(t, err)
	stored, err := p.Publish(t.Context(), event(t, "e1", "c0"))
	require.NoError(t, err)
	_, err = refused.Receipt()
	require.ErrorIs(t, err, bus.ErrTooLarge)
	receipt, err := stored.Receipt()
	require.NoError(t, err)
	require.EqualValues(t, 1, receipt.Sequence)
	_, err = p.Publish(t.Context(), bus.Event{Tenant: "acme", Name: "X", ID: "e2"})
	require.ErrorIs(t, err, bus.ErrInvalidEvent)
}

func TestADuplicateIsASuccessThatSaysSo(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	p := newPublisher(t, b, bus.PublisherOptions{})
	for _, duplicate := range []bool{false, true} {
		q, err := p.Publish(t.Context(), event(t, "e1", "c1"))
		require.NoError(t, err)
		receipt, err := q.Receipt()
		require.NoError(t, err)
		require.Equal(t, bus.Receipt{Subject: "cim.acme.web.CUSTOMER_MESSAGE", Stream: "CIM_EVENTS", Sequence: 1, Duplicate: duplicate}, receipt)
	}
}

func TestADuplicateOfAnUnansweredTryOfItsOwnIsNone(t *testing.T) {
	tries := 0
	b := standIn(t, func(m *nats.Msg) {
		if tries++; tries > 1 {
			require.NoError(t, m.Respond([]byte(`{"stream":"CIM_EVENTS","seq":7,"duplicate":true}`)))
		}
	})
	p := newPublisher(t, b, bus.PublisherOptions{AckWait: 10 * time.Millisecond})
	q, err := p.Publish(t.Context(), event(t, "e1", "c1"))
	require.NoError(t, err)
	receipt, err := q.Receipt()
	require.NoError(t, err)
	require.Equal(t, bus.Receipt{Subject: "cim.acme.web.CUSTOMER_MESSAGE", Stream: "CIM_EVENTS", Sequence: 7}, receipt)
}

func TestAnswersThatPassAreTriedAgainUntilTheyDo(t *testing.T) {
	answers := []string{
		`{"error":{"code":503,"err_code":10008,"description":"JetStream system temporarily unavailable"}}`,
		`{"error":{"code":429,"err_code":10167,"description":"too many requests"}}`,
		`{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"}}`,
		`{"stream":"CIM_EVENTS","seq":7}`,
	}
	tries := 0
	b := standIn(t, func(m *nats.Msg) {
		require.NoError(t, m.Respond([]byte(answers[tries%len(answers)])))
		tries++
	})
	receipt, err := b.Publish(t.Context(), event(t, "e1", "c1"))
	require.NoError(t, err)
	require.EqualValues(t, 7, receipt.Sequence)
	p := newPublisher(t, b, bus.PublisherOptions{})
	q, err := p.Publish(t.Context(), event(t, "e2", "c1"))
	require.NoError(t, err)
	receipt, err = q.Receipt()
	require.NoError(t, err)
	require.EqualValues(t, 7, receipt.Sequence)
}

func TestPublishWaitsWhileTooManyEventsArePendingButNotBeyondItsContext(t *testing.T) {
	p := newPublisher(t, silent(t), bus.PublisherOptions{MaxPending: 2, RetryFor: 300 * time.Millisecond})
	for i := range 2 {
		_, err := p.Publish(t.Context(), event(t, fmt.Sprint(i), "c1"))
		require.NoError(t, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := p.Publish(ctx, event(t, "2", "c1"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = p.Publish(t.Context(), event(t, "2", "c1"))
	require.NoError(t, err, "one has its outcome after RetryFor")
}

func TestEventsWithoutAnswerAreUnknownAndThoseNeverSentAreNot(t *testing.T) {
	p := newPublisher(t, silent(t), bus.PublisherOptions{RetryFor: 300 * time.Millisecond})
	sent, err := p.Publish(t.Context(), event(t, "1", "c1"))
	require.NoError(t, err)
	held, err := p.Publish(t.Context(), event(t, "2", "c1"))
	require.NoError(t, err)
	require.NoError(t, p.Flush(t.Context()))
	_, err = sent.Receipt()
	require.ErrorIs(t, err, bus.ErrUnknownOutcome)
	_, err = held.Receipt()
	require.ErrorIs(t, err, bus.ErrUnreachable)
}

func TestCloseGivesEveryEventAnOutcomeAndEndsInTime(t *testing.T) {
	p := newPublisher(t, silent(t), bus.PublisherOptions{})
	sent, err := p.Publish(t.Context(), event(t, "1", "c1"))
	require.NoError(t, err)
	held, err := p.Publish(t.Context(), event(t, "2", "c1"))
	require.NoError(t, err)
	closePublisher(t, p, 100*time.Millisecond)
	_, err = sent.Receipt()
	require.ErrorIs(t, err, bus.ErrUnknownOutcome)
	_, err = held.Receipt()
	require.ErrorIs(t, err, bus.ErrClosed)
	_, err = p.Publish(t.Context(), event(t, "3", "c1"))
	require.ErrorIs(t, err, bus.ErrClosed)
	require.ErrorIs(t, p.Close(t.Context()), context.DeadlineExceeded, "closing again tells the same")
}

func TestWithoutItsStreamEveryEventFailsSoonAndForSure(t *testing.T) {
	b, err := tryOpen(t, bus.Options{Conn: testConn(t, bustest.Server(t)), LeaveStreams: true})
	require.NoError(t, err)
	p := newPublisher(t, b, bus.PublisherOptions{})
	l := newLoad(t, 50, 3)
	l.publish(t, p, nil)
	require.NoError(t, p.Flush(t.Context()))
	for _, q := range l.pending {
		_, err := q.Receipt()
		require.ErrorIs(t, err, bus.ErrNoStream)
	}
	_, err = b.JetStream().CreateStream(t.Context(), jetstream.StreamConfig{Name: bus.StreamEvents, Subjects: []string{"cim.*.*.*"}})
	require.NoError(t, err)
	q, err := p.Publish(t.Context(), event(t, "1", "c1"))
	require.NoError(t, err)
	_, err = q.Receipt()
	require.NoError(t, err)
}

func TestAPublisherEndsWithItsBusOrConnection(t *testing.T) {
	ends := map[string]func(*bus.Bus) error{
		"bus":        func(b *bus.Bus) error { return b.Close(t.Context()) },
		"connection": func(b *bus.Bus) error { b.Conn().Close(); return nil },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			sent := make(chan struct{})
			b := standIn(t, func(*nats.Msg) { close(sent) })
			p := newPublisher(t, b, bus.PublisherOptions{})
			q, err := p.Publish(t.Context(), event(t, "1", "c1"))
			require.NoError(t, err)
			<-sent
			require.NoError(t, end(b))
			_, err = q.Receipt()
			require.ErrorIs(t, err, bus.ErrUnknownOutcome)
		})
	}
}

func TestAClosedPublisherLeavesNoGoroutine(t *testing.T) {
	b := testBus(t, bus.StreamOptions{})
	before := goleak.IgnoreCurrent()
	p, err := b.NewPublisher(bus.PublisherOptions{})
	require.NoError(t, err)
	_, err = p.Publish(t.Context(), event(t, "1", "c1"))
	require.NoError(t, err)
	require.NoError(t, p.Close(t.Context()))
	require.NoError(t, goleak.Find(before))
}
