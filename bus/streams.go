package bus

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/cimbus/cimbus/subjects"
)

// The streams of the bus.
const (
	StreamEvents        = "CIM_EVENTS"       // what services published
	StreamDeliveries    = "CIM_DELIVERIES"   // what agents are to receive
	StreamIndex         = "CIM_INDEX"        // one entry per committed event, by conversation
	StreamDeadLetters   = "CIM_DEAD_LETTERS" // what a handler gave up
	StreamReplays       = "CIM_REPLAYS"      // who replayed what, and how far that is
	StreamMembers       = "KV_" + BucketMembers
	StreamConversations = "KV_" + BucketConversations

	BucketMembers       = "CIM_MEMBERS"       // key-value bucket: who is a member of which conversation
	BucketConversations = "CIM_CONVERSATIONS" // key-value bucket: checkpoints of folded conversations
)

// MinDuplicateWindow is the shortest duplicate window the server takes; it cannot be switched off.
const MinDuplicateWindow = 100 * time.Millisecond

const (
	defaultEventsMaxAge         = 7 * 24 * time.Hour
	defaultDeliveriesMaxAge     = 72 * time.Hour
	defaultIndexMaxAge          = 7 * 24 * time.Hour
	defaultDeadLettersMaxAge    = 30 * 24 * time.Hour
	defaultDeliveriesPerSubject = 10_000
	defaultMaxEventBytes        = 1 << 20
	defaultDuplicateWindow      = 10 * time.Minute
	defaultLeftMembersTTL       = 8 * 24 * time.Hour
	defaultConversationsTTL     = 30 * 24 * time.Hour

	// replaysMaxAge is how long it can be told who replayed what.
	replaysMaxAge = 90 * 24 * time.Hour

	// serverDuplicateWindow is what the server gives a stream that says nothing; it stands where no message carries an id.
	serverDuplicateWindow = 2 * time.Minute
	// maxConsumers is said explicitly because the server's own default is 1000 for a stream, watchers of a bucket included. Each
	// costs about 30 KB there, so a limit there must be.
	maxConsumers = 4096
	// deliveryOverhead is what a delivery may be larger than twice its event: its own members and headers.
	deliveryOverhead = 16 << 10
	// redriveHeaders is what a redriven event may be larger than the event it was: its message id, whom it is for, and what was found
	// in the body before. Without room for it the largest events could be given up and never be handled again.
	redriveHeaders = 4 << 10
)

// StreamOptions are the limits of the declared streams. The zero value is the design's.
type StreamOptions struct {
	// MaxBytes is the budget of all streams together, in bytes of one replica: 50 % events, 35 % deliveries, 5 % index, 5 % dead
	// letters, 1 % replays, 2 % members, 2 % conversations. 0 takes what the store may use: the storage limit of the server in this process,
	// else that of the account; where the account has none the streams have none either. -1 sets none in any case.
	MaxBytes int64

	EventsMaxAge      time.Duration // how long CIM_EVENTS keeps an event; default 7 days
	DeliveriesMaxAge  time.Duration // how long an agent may stay away and still resume; default 72 hours
	IndexMaxAge       time.Duration // how long a conversation's history can be read; default 7 days, the events' age
	DeadLettersMaxAge time.Duration // default 30 days
	ConversationsTTL  time.Duration // how long a checkpoint of a quiet conversation is kept; default 30 days
	// LeftMembersTTL is how long the record of a member that left is kept, default 8 days; it must outlive CIM_EVENTS. Records of
	// members that did not leave are kept for ever. It is no setting of the stream: the worker sends it with the record.
	LeftMembersTTL time.Duration

	DeliveriesPerSubject int64 // deliveries kept per agent, type and conversation, the oldest goes; default 10,000

	// MaxEventBytes is the largest event to be published, headers and body together, default 1 MiB. The stream takes 4 KiB more, for the
	// headers of the same event when it is redriven. Both are lowered to what leaves room for the delivery, which is larger than its
	// event: the stream's limit to (max_payload of the server - 16 KiB) / 2.
	MaxEventBytes int32

	// DuplicateWindow is how long CIM_EVENTS and CIM_DELIVERIES remember message ids, so how late a publish can be repeated
	// without being stored twice; default 10 minutes. What is below MinDuplicateWindow, negative included, becomes that.
	DuplicateWindow time.Duration

	// Replicas of every stream. 0 = 1 on a single server and 3 on a cluster, and whatever more an existing stream has. A cluster of
	// fewer than three servers with JetStream refuses 3: say 1 then.
	Replicas int

	// Compression stores blocks compressed (S2). Off by default: a random read costs 2.8 ms instead of 0.06.
	Compression bool
}

// Validate reports every setting that cannot be, with what would be valid.
func (o StreamOptions) Validate() error {
	var errs []error
	if o.MaxBytes < -1 {
		errs = append(errs, fmt.Errorf("max bytes %d: give a number of bytes, 0 for what the store may use or -1 for no limit", o.MaxBytes))
	}
	for _, age := range []struct {
		name  string
		value time.Duration
	}{
		{"events max age", o.EventsMaxAge},
		{"deliveries max age", o.DeliveriesMaxAge},
		{"index max age", o.IndexMaxAge},
		{"dead letters max age", o.DeadLettersMaxAge},
		{"conversations TTL", o.ConversationsTTL},
		{"left members TTL", o.LeftMembersTTL},
	} {
		if age.value != 0 && age.value < time.Second {
			errs = append(errs, fmt.Errorf("%s %v: give at least 1s, or 0 for the default", age.name, age.value))
		}
	}
	if o.DeliveriesPerSubject < 0 {
		errs = append(errs, fmt.Errorf("deliveries per subject %d: give a positive number, or 0 for the default", o.DeliveriesPerSubject))
	}
	if o.MaxEventBytes < 0 {
		errs = append(errs, fmt.Errorf("max event bytes %d: give a number of bytes, or 0 for the default", o.MaxEventBytes))
	}
	if o.Replicas < 0 || o.Replicas > 5 {
		errs = append(errs, fmt.Errorf("replicas %d: give 1 to 5, or 0 for what the server can do", o.Replicas))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stream options: %w", err)
	}
	return nil
}

// withDefaults fills in what was left open, but MaxBytes and Replicas: those depend on the server.
func (o StreamOptions) withDefaults() StreamOptions {
	o.EventsMaxAge = cmp.Or(o.EventsMaxAge, defaultEventsMaxAge)
	o.DeliveriesMaxAge = cmp.Or(o.DeliveriesMaxAge, defaultDeliveriesMaxAge)
	o.IndexMaxAge = cmp.Or(o.IndexMaxAge, defaultIndexMaxAge)
	o.DeadLettersMaxAge = cmp.Or(o.DeadLettersMaxAge, defaultDeadLettersMaxAge)
	o.ConversationsTTL = cmp.Or(o.ConversationsTTL, defaultConversationsTTL)
	o.LeftMembersTTL = cmp.Or(o.LeftMembersTTL, defaultLeftMembersTTL)
	o.DeliveriesPerSubject = cmp.Or(o.DeliveriesPerSubject, defaultDeliveriesPerSubject)
	o.MaxEventBytes = cmp.Or(o.MaxEventBytes, defaultMaxEventBytes)
	o.DuplicateWindow = max(cmp.Or(o.DuplicateWindow, defaultDuplicateWindow), MinDuplicateWindow)
	return o
}

// place is what the declaration of the streams depends on besides the options: the server they are to live on.
type place struct {
	maxBytes     int64 // budget of all streams, -1 = none
	streamBytes  int64 // the account's limit for a single stream, 0 = none
	maxPayload   int64 // of the server, bytes
	replicas     int
	maxConsumers int // the account's limit, 0 = none
}

// share is per cent of the budget, -1 where there is none.
func (p place) share(percent int64) int64 {
	if p.maxBytes < 0 {
		if p.streamBytes > 0 {
			return p.streamBytes
		}
		return -1
	}
	// At least 1: 0 would mean no limit.
	bytes := max(p.maxBytes/100*percent, 1)
	if p.streamBytes > 0 {
		bytes = min(bytes, p.streamBytes)
	}
	return bytes
}

// declare is the declaration of the streams, in the order they are created.
func (o StreamOptions) declare(p place) []jetstream.StreamConfig {
	o = o.withDefaults()
	streams := []jetstream.StreamConfig{
		{
			Name:        StreamEvents,
			Description: "CIM events as services published them",
			Subjects:    []string{subjects.AllEvents},
			MaxAge:      o.EventsMaxAge,
			MaxBytes:    p.share(50),
			// The publisher hears that the stream is full; nothing it was told is stored goes early.
			Discard:    jetstream.DiscardNew,
			MaxMsgSize: int32(min(int64(o.MaxEventBytes)+redriveHeaders, (p.maxPayload-deliveryOverhead)/2)),
			Duplicates: min(o.DuplicateWindow, o.EventsMaxAge),
		},
		{
			Name:              StreamDeliveries,
			Description:       "Deliveries to agents, republished live",
			Subjects:          []string{subjects.AllDeliveries},
			MaxAge:            o.DeliveriesMaxAge,
			MaxBytes:          p.share(35),
			MaxMsgsPerSubject: o.DeliveriesPerSubject,
			Duplicates:        min(o.DuplicateWindow, o.DeliveriesMaxAge),
			RePublish:         &jetstream.RePublish{Source: subjects.AllDeliveries, Destination: subjects.AllLive},
		},
		{
			Name:        StreamIndex,
			Description: "One entry per committed event, by conversation",
			Subjects:    []string{subjects.AllIndex},
			MaxAge:      o.IndexMaxAge,
			MaxBytes:    p.share(5),
			Duplicates:  min(serverDuplicateWindow, o.IndexMaxAge),
		},
		{
			Name:        StreamDeadLetters,
			Description: "Events a handler gave up, with the reason, and what became of them",
			Subjects:    []string{subjects.AllDeadLetters, subjects.AllRedrives},
			MaxAge:      o.DeadLettersMaxAge,
			MaxBytes:    p.share(5),
			Duplicates:  min(serverDuplicateWindow, o.DeadLettersMaxAge),
		},
		{
			Name:              StreamReplays,
			Description:       "Records of replays: who replayed what, and how far that is",
			Subjects:          []string{subjects.AllReplays},
			MaxAge:            replaysMaxAge,
			MaxBytes:          p.share(1),
			MaxMsgsPerSubject: 1, // a record tells all of its replay
			Duplicates:        serverDuplicateWindow,
		},
		// Left members carry a TTL of their own, the others none, so the stream has no age.
		bucket(StreamMembers, subjects.AllMembers, "Members of conversations", p.share(2), 0, jetstream.DiscardNew),
		bucket(StreamConversations, subjects.AllConversations, "Checkpoints of folded conversations", p.share(2), o.ConversationsTTL,
			jetstream.DiscardOld), // a checkpoint that goes early costs a loading from the index
	}
	for i := range streams {
		s := &streams[i]
		s.Storage = jetstream.FileStorage
		s.Retention = jetstream.LimitsPolicy
		s.Replicas = p.replicas
		s.AllowDirect = true // for reading in batches; what must be right is read from the leader
		s.MaxMsgs = -1
		s.MaxMsgSize = cmp.Or(s.MaxMsgSize, -1)
		s.MaxMsgsPerSubject = cmp.Or(s.MaxMsgsPerSubject, -1)
		s.MaxConsumers = maxConsumers
		if p.maxConsumers > 0 {
			s.MaxConsumers = min(maxConsumers, p.maxConsumers)
		}
		if o.Compression {
			s.Compression = jetstream.S2Compression
		}
	}
	return streams
}

// bucket is the stream nats.go's KeyValue opens: what its CreateKeyValue would make with a history of one value, TTLs per message allowed,
// and single messages not denied to be deleted: only so can one be overwritten, as an erasure must.
func bucket(stream, keys, description string, maxBytes int64, ttl time.Duration, full jetstream.DiscardPolicy) jetstream.StreamConfig {
	window := serverDuplicateWindow
	if ttl > 0 {
		window = min(window, ttl)
	}
	return jetstream.StreamConfig{
		Name:              stream,
		Description:       description,
		Subjects:          []string{keys},
		MaxAge:            ttl,
		MaxBytes:          maxBytes,
		MaxMsgsPerSubject: 1,
		Discard:           full,
		Duplicates:        window,
		AllowRollup:       true,
		AllowMsgTTL:       true,
	}
}
