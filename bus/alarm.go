package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/cimbus/cimbus/bus/embedded"
)

const (
	defaultAlarmEvery = 10 * time.Second
	// soonAlarm is when the streams are asked again for the first time: what is started together with the watch is seen then.
	soonAlarm = time.Second
	// diskEvery is how often the disk is looked at: what a second of publishing at full speed writes fits the reserve many times.
	diskEvery = 250 * time.Millisecond
	// maxDiskReserve bounds a tenth of the disk.
	maxDiskReserve = 1 << 30
)

// AlarmOptions say when the alarms of a bus go off. The zero value has the defaults.
type AlarmOptions struct {
	// Threshold is the share of a limit of bytes from which it is a warning, 0 to 1; default AlarmThreshold.
	Threshold float64
	// Every is how often the streams are asked, default 10 s.
	Every time.Duration
	// Lag is how long an event may wait for its handler before that is a failure, default 5 minutes.
	Lag time.Duration
	// DiskReserve is how much of the disk, in bytes, stays free for what is made of the events that are there: with less left, CIM_EVENTS
	// takes no more. Default a tenth of the disk, at most 1 GiB. It is for the server in this process only.
	DiskReserve uint64
	// ReadDisk asks for the room of the store's disk; default embedded.ReadDisk. A host with a quota of its own says it here.
	ReadDisk func(dir string) (embedded.Disk, error)
}

// DiskReserve is how much of a disk stays free unless told otherwise: a tenth, at most 1 GiB.
func DiskReserve(disk embedded.Disk) uint64 { return min(disk.Total/10, maxDiskReserve) }

// Alarms watch what a bus has room for and what it lost. Every change of state is logged once.
//
// They keep the disk from running full too, where the server is in this process: the server never gets over a failed write, and
// answers no publisher any more. So before that CIM_EVENTS is held at what it has: publishers hear ErrStoreFull, what is stored is
// worked off, and once there is room again the stream takes events by itself.
//
// Methods may be called from several goroutines at once. The host ends them with Close, before it closes the bus.
type Alarms struct {
	bus *Bus
	o   AlarmOptions
	log hclog.Logger

	mu       sync.Mutex
	streams  []StreamStatus
	handlers []HandlerStatus
	dead     []DeadLetterStatus
	stored   uint64
	found    map[string]Finding // by check and stream; what was found last
	order    []string           // its keys, as they first came up
	disk     embedded.Disk
	seen     map[string]StreamStatus // highest last sequence seen of each stream

	// The goroutine alone uses these.
	held      bool
	limit     int64 // of CIM_EVENTS, while it is held
	reserve   uint64
	deadState [3]uint64 // first and last sequence and messages of CIM_DEAD_LETTERS when it was counted
	deadNext  time.Time // no count before

	cancel context.CancelFunc
	ctx    context.Context
	done   chan struct{}
}

// WatchAlarms begins to watch, and returns after the first look; ctx bounds that one.
func (b *Bus) WatchAlarms(ctx context.Context, o AlarmOptions) (*Alarms, error) {
	if o.Threshold < 0 || o.Threshold > 1 || o.Every < 0 || o.Lag < 0 {
		return nil, fmt.Errorf("alarm options: threshold %v, every %v, lag %v: give a share between 0 and 1 and positive times", o.Threshold, o.Every, o.Lag)
	}
	o.Threshold, o.Every, o.Lag = cmp.Or(o.Threshold, AlarmThreshold), cmp.Or(o.Every, defaultAlarmEvery), cmp.Or(o.Lag, lagFail)
	if o.ReadDisk == nil {
		o.ReadDisk = embedded.ReadDisk
	}
	a := &Alarms{
		bus: b, o: o, log: b.log.Named("alarm"), found: map[string]Finding{}, seen: map[string]StreamStatus{}, done: make(chan struct{}),
	}
	a.ctx, a.cancel = context.WithCancel(b.ctx)
	a.lookAtDisk(ctx)
	a.lookAtStreams(ctx)
	go a.run()
	return a, nil
}

// Close ends the watch. A CIM_EVENTS that is held stays so until the bus is opened again. It may be called more than once.
func (a *Alarms) Close() error {
	a.cancel()
	<-a.done
	return nil
}

// Findings are those that are not ok, as of the last look.
func (a *Alarms) Findings() []Finding {
	a.mu.Lock()
	defer a.mu.Unlock()
	var bad []Finding
	for _, key := range a.order {
		if f := a.found[key]; f.Level != LevelOK {
			bad = append(bad, f)
		}
	}
	return bad
}

// Streams are the streams as of the last look that was answered.
func (a *Alarms) Streams() []StreamStatus {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.streams
}

// Disk is the room of the store's disk; zero where the server is not in this process or the system does not tell.
func (a *Alarms) Disk() embedded.Disk {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.disk
}

func (a *Alarms) run() {
	defer close(a.done)
	streams := time.NewTimer(min(soonAlarm, a.o.Every))
	defer streams.Stop()
	disk := time.NewTicker(min(diskEvery, a.o.Every))
	defer disk.Stop()
	for {
		select {
		case <-a.ctx.Done():
			return
		case <-disk.C:
			a.lookAtDisk(a.ctx)
		case <-streams.C:
			a.lookAtStreams(a.ctx)
			streams.Reset(a.o.Every)
		}
	}
}

// lookAtStreams judges every stream. Where they cannot be asked nothing is concluded; others report that.
func (a *Alarms) lookAtStreams(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, apiTry)
	defer cancel()
	streams, err := a.bus.Streams(ctx)
	if err != nil {
		a.log.Debug("streams not asked", "error", err)
		return
	}
	a.mu.Lock()
	a.countStored(a.streams, streams)
	a.streams = streams
	a.mu.Unlock()
	a.lookAtHandlers(ctx, streams[0])
	for _, s := range streams {
		if !s.Exists {
			continue
		}
		if s.Stream == StreamDeadLetters {
			a.lookAtDeadLetters(ctx, s)
		}
		room := s.Room(a.o.Threshold)
		if s.Stream == StreamEvents && a.held {
			room.Level = LevelOK // the disk's alarm says it
			a.holdOn(ctx, s)
		}
		a.tell(room)
		a.tell(s.Loss())
		a.tell(a.sequences(s))
	}
}

// sequences judges whether a stream's last sequence went back since this watch began, or the stream was made anew. Neither is ever
// taken back.
func (a *Alarms) sequences(s StreamStatus) Finding {
	f := Finding{
		Check: "sequences", Of: s.Stream, Level: LevelOK, Found: "go up", Remedy: nothing,
		Why: "what was acknowledged and is not there any more is lost, and its sequences are given out again",
	}
	before, known := a.seen[s.Stream]
	switch {
	case known && !before.Created.Equal(s.Created):
		f.Level = LevelFail
		f.Found = fmt.Sprintf("was deleted and made again while the bus ran; it ended at %d", before.LastSequence)
		f.Remedy = "find out who deleted it; restore a copy, or have publishers send again what agents miss"
		if rebuilt(s.Stream) {
			f.Level, f.Why, f.Remedy = LevelWarn, "histories and member lists are incomplete until the worker has written it again from the events, which its log tells", "find out who deleted it"
		}
		return f
	case known && s.LastSequence < before.LastSequence:
		f.Level = LevelFail
		f.Found = fmt.Sprintf("went back from %d to %d while the bus ran", before.LastSequence, s.LastSequence)
		f.Remedy = "stop the handlers; restore all streams from one copy, or have publishers send again what came after it"
		return f
	}
	a.seen[s.Stream] = s
	return f
}

// lookAtDisk judges the room of the disk, and holds CIM_EVENTS or lets it go.
func (a *Alarms) lookAtDisk(ctx context.Context) {
	server := a.bus.server
	if server == nil {
		return
	}
	disk, err := a.o.ReadDisk(server.StoreDir())
	if err != nil {
		if !errors.Is(err, errors.ErrUnsupported) {
			a.tell(Finding{
				Check: "disk", Level: LevelWarn, Found: "its room cannot be read: " + err.Error(),
				Why: "a disk that is full is then noticed only when a write fails", Remedy: "see that the store folder is there and can be read",
			})
		}
		return
	}
	a.mu.Lock()
	a.disk = disk
	a.mu.Unlock()
	a.reserve = cmp.Or(a.o.DiskReserve, DiskReserve(disk))
	switch {
	case !a.held && disk.Free < a.reserve:
		err = a.hold(ctx)
	case a.held && disk.Free >= a.enough():
		err = a.release(ctx)
	}
	f := a.judgeDisk(disk)
	if err != nil {
		f.Level, f.Found = LevelFail, f.Found+"; CIM_EVENTS could not be told: "+err.Error()
	}
	a.tell(f)
}

// enough is the room with which CIM_EVENTS is let go: at the reserve itself it would go on and off.
func (a *Alarms) enough() uint64 { return a.reserve + a.reserve/2 }

func (a *Alarms) judgeDisk(disk embedded.Disk) Finding {
	f := Finding{
		Check: "disk", Level: LevelOK, Remedy: nothing, Found: fmt.Sprintf("%s of %s are free", bytesOf(disk.Free), bytesOf(disk.Total)),
		Why: fmt.Sprintf("below %s publishers are refused (event store is full), because a full disk would stop the server", bytesOf(a.reserve)),
	}
	const remedy = "make room on the disk, or keep less free: alarms.disk_reserve"
	switch {
	case a.held:
		f.Level, f.Remedy = LevelFail, fmt.Sprintf("%s; events are taken again by themselves once %s are free", remedy, bytesOf(a.enough()))
		f.Found += ": CIM_EVENTS takes no more"
	case disk.Free < 2*a.reserve:
		f.Level, f.Remedy = LevelWarn, remedy
	}
	return f
}

// hold makes CIM_EVENTS full as it is. Lowering its limit deletes nothing: it refuses what is new.
func (a *Alarms) hold(ctx context.Context) error {
	limit, err := a.bus.limitEvents(ctx, true)
	a.held, a.limit = err == nil, limit
	return err
}

// holdOn holds CIM_EVENTS again where somebody gave it back the limit that is declared, as cimbus streams apply does.
func (a *Alarms) holdOn(ctx context.Context, events StreamStatus) {
	if events.MaxBytes == a.limit {
		return
	}
	a.log.Warn("CIM_EVENTS was given more room while the disk is nearly full, it is held again", "max_bytes", events.MaxBytes)
	if err := a.hold(ctx); err != nil {
		a.log.Warn("CIM_EVENTS could not be held", "error", err)
	}
}

// release gives CIM_EVENTS the limit that is declared.
func (a *Alarms) release(ctx context.Context) error {
	_, err := a.bus.limitEvents(ctx, false)
	a.held = err != nil
	return err
}

// heldMark is in the metadata of a CIM_EVENTS that is held, for whoever wonders at its limit. A daemon that ends leaves it, so it says
// something only beside another limit than the declared one.
const heldMark = "cimbus-held"

// limitEvents sets the limit of CIM_EVENTS to the bytes it has, or to what is declared, and returns it.
func (b *Bus) limitEvents(ctx context.Context, held bool) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, apiTry)
	defer cancel()
	p, err := b.place(ctx)
	if err != nil {
		return 0, err
	}
	info, err := b.streamInfo(ctx, StreamEvents)
	if err != nil {
		return 0, err
	}
	c := info.Config
	c.Metadata = maps.Clone(c.Metadata)
	if held {
		c.MaxBytes = int64(max(info.State.Bytes, 1))
		if c.Metadata == nil {
			c.Metadata = map[string]string{}
		}
		c.Metadata[heldMark] = "the disk is nearly full"
	} else {
		c.MaxBytes = b.streams.declare(p)[0].MaxBytes
		delete(c.Metadata, heldMark)
	}
	if _, err := b.js.UpdateStream(ctx, c); err != nil {
		return 0, fmt.Errorf("stream %s: limit its bytes: %w", StreamEvents, err)
	}
	return c.MaxBytes, nil
}

// tell keeps a finding and logs it if its level is another than before.
func (a *Alarms) tell(f Finding) {
	key := f.Check + " " + f.Of
	a.mu.Lock()
	before, known := a.found[key]
	if !known {
		before.Level = LevelOK
		a.order = append(a.order, key)
	}
	a.found[key] = f
	a.mu.Unlock()
	if f.Level == before.Level {
		return
	}
	args := []any{"check", f.Check, "of", f.Of, "found", f.Found}
	switch f.Level {
	case LevelFail:
		a.log.Error("alarm", append(args, "why", f.Why, "remedy", f.Remedy)...)
	case LevelWarn:
		a.log.Warn("alarm", append(args, "why", f.Why, "remedy", f.Remedy)...)
	default:
		a.log.Info("alarm is over", args...)
	}
}
