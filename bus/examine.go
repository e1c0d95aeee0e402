package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

const (
	// testedServer is the oldest NATS server whose behaviour the commit protocol was measured on.
	testedServer = "2.15"
	// A handler's oldest waiting event is told from lagWarn, and is a failure from lagFail.
	lagWarn = 10 * time.Second
	lagFail = 5 * time.Minute
	// deadLately is how long a dead letter counts for one of a trouble that goes on.
	deadLately = time.Hour
	// clockSkew is by how much clocks may differ before it is told.
	clockSkew = 2 * time.Second
)

// Examine checks the bus and explains what it finds: server, JetStream, what is known of durability, streams against their
// declaration, room, lost messages, sequences that went back, lag of the handlers, dead letters, clocks. What is room enough o.Threshold says, as for
// the alarms. It changes nothing. What cannot be asked is a finding too; an error is returned only where ctx ended.
func (b *Bus) Examine(ctx context.Context, o AlarmOptions) ([]Finding, error) {
	threshold := cmp.Or(o.Threshold, AlarmThreshold)
	found := []Finding{b.examineServer(), b.examineJetStream(ctx, threshold)}
	streams, err := b.Streams(ctx)
	if err != nil {
		return append(found, unasked("streams", err)), ctx.Err()
	}
	found = append(found, b.examineReplicas(ctx, streams)...)
	found = append(found, b.examinePlan(ctx)...)
	for _, s := range streams {
		if s.Exists {
			found = append(found, s.Room(threshold))
		}
	}
	found = append(found, together("lost", streams, StreamStatus.Loss)...)
	found = append(found, b.examineOrder(ctx, streams)...)
	found = append(found, restoredOf(streams)...)
	found = append(found, b.examineLag(ctx, streams, cmp.Or(o.Lag, lagFail))...)
	found = append(found, b.examineDeadLetters(ctx)...)
	found = append(found, b.examineClock(ctx, streams)...)
	return found, ctx.Err()
}

// unasked is a check that could not be made.
func unasked(check string, err error) Finding {
	return Finding{
		Check: check, Level: LevelFail, Found: "could not be asked: " + err.Error(), Why: "what is not known may be anything",
		Remedy: "see that the server runs and that this user may ask JetStream, then try again",
	}
}

// together makes one finding of all streams that are well, and one for each that is not.
func together(check string, streams []StreamStatus, judge func(StreamStatus) Finding) []Finding {
	var bad []Finding
	var good Finding
	for _, s := range streams {
		f := judge(s)
		if f.Level != LevelOK {
			bad = append(bad, f)
			continue
		}
		good = f
	}
	if len(bad) > 0 {
		return bad
	}
	good.Check, good.Of = check, ""
	return []Finding{good}
}

func (b *Bus) examineServer() Finding {
	version := b.nc.ConnectedServerVersion()
	f := Finding{
		Check: "server", Level: LevelOK, Remedy: nothing,
		Found: fmt.Sprintf("%s at %s, NATS server %s", b.nc.ConnectedServerName(), b.nc.ConnectedUrlRedacted(), version),
		Why:   "what makes deliveries exact was measured on version " + testedServer,
	}
	if older(version, testedServer) {
		f.Level, f.Remedy = LevelWarn, "use NATS server "+testedServer+" or newer"
	}
	return f
}

// older compares the first two numbers of versions. One that cannot be read is not older.
func older(version, than string) bool {
	var major, minor, wantMajor, wantMinor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return false
	}
	if _, err := fmt.Sscanf(than, "%d.%d", &wantMajor, &wantMinor); err != nil {
		return false
	}
	return major < wantMajor || major == wantMajor && minor < wantMinor
}

func (b *Bus) examineJetStream(ctx context.Context, threshold float64) Finding {
	account, err := b.js.AccountInfo(ctx)
	if err != nil {
		return unasked("jetstream", err)
	}
	f := Finding{
		Check: "jetstream", Level: LevelOK, Remedy: nothing, Why: "where the account or the server is full nothing more is stored in any stream",
		Found: fmt.Sprintf("streams: %d, consumers: %d, %s on disk and %s in memory",
			account.Streams, account.Consumers, bytesOf(account.Store), bytesOf(account.Memory)),
	}
	for _, l := range []struct {
		of    string
		used  uint64
		limit int64
	}{{"disk", account.Store, account.Limits.MaxStore}, {"memory", account.Memory, account.Limits.MaxMemory}} {
		if l.limit <= 0 {
			continue
		}
		used := float64(l.used) / float64(l.limit)
		f.Found += fmt.Sprintf(", %.0f %% of the account's %s", used*100, l.of)
		if used >= threshold {
			f.Level, f.Remedy = LevelWarn, "raise the account's limit of "+l.of+", or let the streams keep less"
		}
	}
	if b.server != nil {
		c := b.server.Server().JetStreamConfig()
		f.Found += fmt.Sprintf(", of the server's %s on disk and %s in memory", bytesOf(uint64(c.MaxStore)), bytesOf(uint64(c.MaxMemory)))
	}
	return f
}

// examineReplicas tells what of durability a client can see: how many servers keep a stream, and whether a stream was told not to
// wait for the disk. When a server syncs is its own configuration, and it tells no client.
func (b *Bus) examineReplicas(ctx context.Context, streams []StreamStatus) []Finding {
	var found []Finding
	fewest := 0
	for _, s := range streams {
		if !s.Exists {
			continue
		}
		if fewest == 0 || s.Replicas < fewest {
			fewest = s.Replicas
		}
		for _, p := range s.Peers {
			if p.Offline {
				found = append(found, Finding{
					Check: "replicas", Of: s.Stream, Level: LevelWarn, Found: "server " + p.Server + " is away",
					Why: "one more that goes may stop the stream", Remedy: "bring " + p.Server + " back",
				})
			}
		}
		info, err := b.js.Stream(ctx, s.Stream)
		if err == nil && info.CachedInfo().Config.PersistMode == jetstream.AsyncPersistMode {
			found = append(found, Finding{
				Check: "replicas", Of: s.Stream, Level: LevelFail, Found: "is acknowledged before it is written (persist mode async)",
				Why: "a killed server then loses what it acknowledged, whatever else was chosen", Remedy: "make the stream with persist mode default",
			})
		}
	}
	if len(found) > 0 {
		return found
	}
	if fewest == 0 {
		return nil // there is no stream, which is another finding
	}
	f := Finding{
		Check: "replicas", Level: LevelOK, Remedy: nothing, Found: fmt.Sprintf("every stream is kept by %d servers", fewest),
		Why: "what several servers keep survives the loss of one of them",
	}
	if fewest <= 1 {
		f.Found = "every stream is kept by one server"
		f.Why = "what its disk loses is lost, and while it is down nothing is stored"
		if b.nc.ConnectedClusterName() != "" {
			f.Level, f.Remedy = LevelWarn, "keep three replicas: streams.replicas 3, then cimbus streams apply"
		}
	}
	return []Finding{f}
}

func (b *Bus) examinePlan(ctx context.Context) []Finding {
	plan, err := b.PlanStreams(ctx)
	if err != nil {
		return []Finding{unasked("streams", err)}
	}
	const why = "what the bus promises hangs on how its streams are set"
	var found []Finding
	for _, s := range plan.Streams {
		var differences []string
		for _, d := range s.Differences {
			differences = append(differences, d.String())
		}
		f := Finding{Check: "streams", Of: s.Stream, Why: why, Found: "differs from its declaration: " + strings.Join(differences, "; ")}
		switch s.Action {
		case ActionKeep:
			continue
		case ActionCreate:
			f.Level, f.Found, f.Remedy = LevelFail, "is missing", "run cimbus streams apply, or start cimbus serve"
		case ActionUpdate:
			if b.isHeld(ctx, s) {
				f.Level, f.Found = LevelFail, "takes no more than it has: the disk of its server is nearly full"
				f.Why, f.Remedy = "publishers are refused (event store is full), because a full disk would stop the server", "make room on that disk; the stream takes events again by itself"
				break
			}
			f.Level, f.Remedy = LevelWarn, "run cimbus streams apply; if these settings are meant, give the configuration they come from by --config"
		case ActionRefuse:
			f.Level, f.Remedy = LevelFail, "configure what is there, or see cimbus streams plan for what a change would lose"
		}
		found = append(found, f)
	}
	if len(found) > 0 {
		return found
	}
	return []Finding{{Check: "streams", Level: LevelOK, Found: fmt.Sprintf("all %d are as declared", len(plan.Streams)), Why: why, Remedy: nothing}}
}

// isHeld tells whether a stream differs from its declaration because its server's disk is nearly full.
func (b *Bus) isHeld(ctx context.Context, s StreamPlan) bool {
	if s.Stream != StreamEvents || len(s.Differences) != 1 || s.Differences[0].Field != "max bytes" {
		return false
	}
	info, err := b.streamInfo(ctx, StreamEvents)
	return err == nil && info.Config.Metadata[heldMark] != ""
}

// examineOrder looks for the traces of a CIM_EVENTS that went back, as by a restored copy or a disk that lied: what was made of an
// event that is not there, or that is another one now. It looks at what was derived last; whether the whole store was put back, all
// streams alike, cannot be seen from within: then the positions of agents tell.
func (b *Bus) examineOrder(ctx context.Context, streams []StreamStatus) []Finding {
	f := Finding{
		Check: "sequences", Level: LevelOK, Found: "what was derived last agrees with its events", Remedy: nothing,
		Why: "where CIM_EVENTS went back, its sequences are given out again, and no event is handled: it would pass for one that was",
	}
	events := streams[0]
	for _, name := range []string{StreamIndex, StreamDeliveries, StreamDeadLetters} {
		m, err := b.LastMessage(ctx, name, ">")
		if errors.Is(err, ErrNoMessage) {
			continue
		}
		if err != nil {
			if !IsStreamGone(err) {
				return []Finding{unasked("sequences", err)}
			}
			continue
		}
		s := SequenceOf(m.Header)
		found, err := b.contradiction(ctx, events, s, LastHeader(m.Header, HeaderSourceTime))
		if err != nil {
			return []Finding{unasked("sequences", err)}
		}
		if found != "" {
			f.Of, f.Level, f.Found = name, LevelFail, "its last message is of event "+fmt.Sprint(s)+", "+found
			f.Remedy = "stop the handlers; restore all streams from one copy, or have publishers send again what came after it"
			break
		}
	}
	return []Finding{f}
}

// restoredOf tells of which snapshot the streams are copies.
func restoredOf(streams []StreamStatus) []Finding {
	f := Finding{
		Check: "restored", Level: LevelOK, Remedy: nothing,
		Why: "what was stored after the snapshot is not there, and positions handed out since then have expired",
	}
	events := streams[0]
	var others []string
	for _, s := range streams {
		if s.Exists && !s.RestoredFrom.Equal(events.RestoredFrom) {
			others = append(others, s.Stream)
		}
	}
	switch {
	case !events.RestoredFrom.IsZero():
		f.Found = fmt.Sprintf("from the snapshot of %s, at %s", events.RestoredFrom.Format(time.RFC3339), events.RestoredAt.Format(time.RFC3339))
	case len(others) > 0:
		f.Found = "CIM_EVENTS is not a copy, and others are"
	default:
		return nil
	}
	if len(others) > 0 {
		f.Of = strings.Join(others, ", ")
		f.Found += "; " + f.Of + ": made, or restored, at another time"
	}
	return []Finding{f}
}

// codeStreamMissing is the server's err_code for a stream that does not exist.
const codeStreamMissing = 10059

// contradiction says in what CIM_EVENTS disagrees with something made of its event s, "" if in nothing.
func (b *Bus) contradiction(ctx context.Context, events StreamStatus, s uint64, made string) (string, error) {
	if s == 0 || !events.Exists {
		return "", nil
	}
	if s > events.LastSequence {
		// The status is a little older than the message.
		if now, err := b.streamInfo(ctx, StreamEvents); err != nil {
			return "", err
		} else if s > now.State.LastSeq {
			return fmt.Sprintf("but CIM_EVENTS ends at %d", now.State.LastSeq), nil
		}
	}
	at := timeOf(made)
	if at.IsZero() {
		return "", nil // not made by the bus
	}
	event, err := b.MessageAt(ctx, StreamEvents, s)
	if errors.Is(err, ErrNoMessage) {
		return "", nil // gone by age or by hand
	}
	if err != nil {
		return "", err
	}
	if !event.Time.Equal(at) {
		return fmt.Sprintf("made of one stored %s; CIM_EVENTS has another there, stored %s", at.Format(time.RFC3339), event.Time.Format(time.RFC3339)), nil
	}
	return "", nil
}

// timeOf reads a time as the bus writes it; zero if it is none.
func timeOf(written string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, written)
	if err != nil {
		return time.Time{}
	}
	return t
}

func (b *Bus) examineLag(ctx context.Context, streams []StreamStatus, fail time.Duration) []Finding {
	const why = "an event that waits has reached no agent yet"
	events := streams[0]
	var found []Finding
	for _, c := range events.Consumers {
		if !c.Durable {
			continue
		}
		oldest, err := b.oldestWaiting(ctx, c)
		if err != nil {
			found = append(found, unasked("lag", err))
			continue
		}
		if c.PausedUntil != nil && c.handler() != "" {
			found = append(found, c.paused(oldest, time.Duration(events.MaxAge*float64(time.Second))))
			continue
		}
		f := c.late(oldest, fail)
		if c.handler() != "" && f.Level != LevelFail {
			worker, err := b.workerOf(ctx, c)
			if err != nil {
				found = append(found, unasked("lag", err))
				continue
			}
			if worker == WorkerNone {
				f.Level, f.Found, f.Remedy = LevelWarn, f.Found+", and no process runs it", "start a process that runs it, such as cimbus serve"
			}
		}
		found = append(found, f)
	}
	if len(found) == 0 && events.Exists {
		return []Finding{{
			Check: "lag", Level: LevelWarn, Found: "no handler has ever run here", Why: why, Remedy: "start cimbus serve",
		}}
	}
	return found
}

// examineDeadLetters tells how many events were given up, and warns while more are.
func (b *Bus) examineDeadLetters(ctx context.Context) []Finding {
	f := Finding{Check: "dead-letters", Level: LevelOK, Found: "there are none", Remedy: nothing, Why: "an event that was given up has reached nobody"}
	last, err := b.LastMessage(ctx, StreamDeadLetters, subjects.AllDeadLetters)
	switch {
	case errors.Is(err, ErrNoMessage):
		return []Finding{f}
	case errorCode(err) == codeStreamMissing:
		return nil // which is another finding
	case err != nil:
		return []Finding{unasked("dead-letters", err)}
	}
	count, err := b.countDeadLetters(ctx)
	if err != nil {
		return []Finding{unasked("dead-letters", err)}
	}
	var all uint64
	for _, n := range count {
		all += n
	}
	since := max(time.Since(last.Time), 0)
	f.Found = fmt.Sprintf("there are %d, the last one was stored %s ago", all, since.Round(time.Second))
	if since < deadLately {
		f.Level, f.Remedy = LevelWarn, "see why with cimbus dlq ls, mend it, then cimbus dlq redrive or drop"
	}
	return []Finding{f}
}

// examineClock compares this machine's clock with the server's and with the times of what is stored.
func (b *Bus) examineClock(ctx context.Context, streams []StreamStatus) []Finding {
	f := Finding{
		Check: "clock", Level: LevelOK, Remedy: nothing,
		Why: "age limits, positions and the time a conversation shows all go by the server's clock",
	}
	asked := time.Now()
	info, err := b.streamInfo(ctx, StreamEvents)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return nil
	}
	if err != nil {
		return []Finding{unasked("clock", err)}
	}
	answered := time.Now()
	// Between asking and being answered any time of the server is right.
	skew := time.Duration(0)
	switch server := info.TimeStamp; {
	case server.IsZero():
	case server.Before(asked):
		skew = server.Sub(asked)
	case server.After(answered):
		skew = server.Sub(answered)
	}
	f.Found = fmt.Sprintf("the server's and this machine's agree within %s", max(skew.Abs(), time.Millisecond).Round(time.Millisecond))
	if skew.Abs() > clockSkew {
		f.Level, f.Remedy = LevelWarn, "let a time service set the clocks of both machines"
		f.Found = fmt.Sprintf("the server's is off this machine's by %s", skew.Round(time.Millisecond))
	}
	now := time.Now().Add(skew)
	for _, s := range streams {
		if s.LastTime == nil || s.LastTime.Before(now.Add(clockSkew)) {
			continue
		}
		f.Of, f.Level = s.Stream, LevelFail
		f.Found = fmt.Sprintf("its last message was stored %s in the future: the server's clock went back", s.LastTime.Sub(now).Round(time.Second))
		f.Remedy = "set the server's clock right; until it has caught up, messages are kept for longer than their age"
		break
	}
	return []Finding{f}
}
