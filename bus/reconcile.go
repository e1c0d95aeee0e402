package bus

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

const (
	// electionWait bounds how long a call to the streams API is repeated while a cluster has no leader; it took up to 13 s with one of
	// three servers killed on two cores.
	electionWait = 30 * time.Second
	// peersWait bounds it while a cluster says it has not enough servers: it may still be forming, or may never have them.
	peersWait = 10 * time.Second
	apiTry    = 5 * time.Second
	apiPause  = 250 * time.Millisecond

	// apiLevelTTL is the JetStream API level of servers that know a TTL per message (2.11); older ones ignore the setting in silence.
	apiLevelTTL = 1
)

// The server's err_code of answers that reconciling streams tells apart.
const (
	codeNoPeers             = 10005
	codeClusterUnavailable  = 10008
	codeClusterNotLeader    = 10009
	codeNoStorage           = 10047
	codeInsufficient        = 10023
	codeReplicasUnsupported = 10074
	codeMaxBytesRequired    = 10113
)

// StreamOptions are the options the streams are declared by, with what was left open filled in, but for MaxBytes and Replicas.
func (b *Bus) StreamOptions() StreamOptions { return b.streams.withDefaults() }

// PlanStreams compares the streams with what is declared and changes nothing.
func (b *Bus) PlanStreams(ctx context.Context) (Plan, error) {
	if err := b.streams.Validate(); err != nil {
		return Plan{}, err
	}
	p, err := b.place(ctx)
	if err != nil {
		return Plan{}, fmt.Errorf("plan streams: %w", err)
	}
	var plan Plan
	for _, want := range b.streams.declare(p) {
		s, err := b.planStream(ctx, want)
		if err != nil {
			return Plan{}, fmt.Errorf("plan stream %s: %w", want.Name, err)
		}
		plan.Streams = append(plan.Streams, s)
	}
	if slices.ContainsFunc(plan.Streams, func(s StreamPlan) bool { return s.Action != ActionCreate }) {
		for i := range plan.Streams {
			if s := &plan.Streams[i]; s.Action == ActionCreate {
				s.config.FirstSeq = firstSequence(time.Now())
			}
		}
	}
	return plan, nil
}

func (b *Bus) planStream(ctx context.Context, want jetstream.StreamConfig) (StreamPlan, error) {
	plan := StreamPlan{Stream: want.Name, Action: ActionCreate, config: want, grows: max(want.MaxBytes, 0)}
	info, err := b.streamInfo(ctx, want.Name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		holders, err := b.holders(ctx, want.Subjects)
		if slices.Contains(holders, want.Name) {
			return b.planStream(ctx, want) // another bus has created it in between
		}
		for _, holder := range holders {
			plan.Action = ActionRefuse
			plan.Differences = append(plan.Differences, Difference{
				Field: "subjects", Have: "in stream " + holder, Want: strings.Join(want.Subjects, ", "),
				Impossible: true, Why: "cannot be created: two streams cannot take one subject; delete " + holder + " or narrow its subjects",
			})
		}
		return plan, err
	}
	if err != nil {
		return plan, err
	}
	c := comparison{
		have: info.Config, state: info.State, want: want, now: info.TimeStamp,
		atLeast: b.streams.Replicas == 0,
		fullest: func(ctx context.Context) (uint64, error) { return b.fullestSubject(ctx, want.Name) },
	}
	if c.now.IsZero() {
		c.now = time.Now()
	}
	if err := c.run(ctx); err != nil {
		return plan, err
	}
	plan.Differences, plan.config = c.diffs, c.to
	plan.grows = max(c.to.MaxBytes, 0) - max(c.have.MaxBytes, 0)
	if from := info.Config.Metadata[metadataRestoring]; from != "" {
		plan.Differences = append(plan.Differences, Difference{
			Field: "restored", Have: "in part", Want: "to the end", Impossible: true,
			Why: "restoring the snapshot of " + from + " was broken off: cimbus streams restore it again",
		})
	}
	plan.restored, _ = restoredFrom(info.Config.Metadata)
	plan.Action = ActionKeep
	for _, d := range plan.Differences {
		if d.Destructive || d.Impossible {
			plan.Action = ActionRefuse
			break
		}
		plan.Action = ActionUpdate
	}
	return plan, nil
}

// holders names the streams that take any of these subjects.
func (b *Bus) holders(ctx context.Context, subjects []string) ([]string, error) {
	var names []string
	for _, subject := range subjects {
		err := b.patiently(ctx, func(ctx context.Context) error {
			l := b.js.StreamNames(ctx, jetstream.WithStreamListSubject(subject))
			for name := range l.Name() {
				names = append(names, name)
			}
			return l.Err()
		})
		if err != nil {
			return nil, fmt.Errorf("ask who stores %s: %w", subject, err)
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// ApplyStreams carries out a plan of PlanStreams. Where it refuses something it returns a *PlanError and changes nothing; force makes
// destructive changes too, but not impossible ones. Every change is logged. Applying a plan twice, or by two processes at once,
// is harmless.
func (b *Bus) ApplyStreams(ctx context.Context, plan Plan, force bool) error {
	if refused := plan.Refused(); len(refused) > 0 && (!force || plan.Impossible()) {
		return &PlanError{Plan: plan}
	}
	// What gives storage back goes first, so that what takes some finds it.
	order := slices.Clone(plan.Streams)
	slices.SortStableFunc(order, func(x, y StreamPlan) int {
		switch {
		case x.grows < 0 && y.grows >= 0:
			return -1
		case y.grows < 0 && x.grows >= 0:
			return 1
		}
		return 0
	})
	for _, s := range order {
		if s.Action == ActionKeep {
			continue
		}
		if err := b.applyStream(ctx, s); err != nil {
			return fmt.Errorf("%s stream %s: %w", verb(s.Action), s.Stream, explain(err, s.grows))
		}
	}
	return nil
}

func verb(a Action) string {
	if a == ActionCreate {
		return "create"
	}
	return "update"
}

func (b *Bus) applyStream(ctx context.Context, s StreamPlan) error {
	if s.Action == ActionCreate {
		err := b.patiently(ctx, func(ctx context.Context) error {
			_, err := b.js.CreateStream(ctx, s.config)
			return err
		})
		if err != nil {
			// Another bus may have created it in between, and let it begin elsewhere; while it does, the storage counts twice.
			if now, planErr := b.planStream(ctx, s.config); planErr == nil && now.Action == ActionKeep {
				return nil
			}
		}
		if err == nil {
			b.log.Info("stream created", "stream", s.Stream, "max_bytes", printLimit(s.config.MaxBytes), "max_age", printAge(s.config.MaxAge), "replicas", s.config.Replicas)
		}
		return err
	}
	err := b.patiently(ctx, func(ctx context.Context) error {
		_, err := b.js.UpdateStream(ctx, s.config)
		return err
	})
	if err != nil {
		return err
	}
	for _, d := range s.Differences {
		b.log.Info("stream changed", "stream", s.Stream, "field", d.Field, "from", d.Have, "to", d.Want, "destructive", d.Destructive)
	}
	return nil
}

// explain adds the remedy to what the server answered to a change by which a stream's reservation grows so many bytes.
func explain(err error, grows int64) error {
	var remedy string
	switch code := errorCode(err); {
	case code == codeNoStorage && grows < 0:
		// The server checks what all streams reserve before it looks at the change.
		remedy = "the server takes no change, smaller limits included, while the byte limits of all streams exceed its storage: give it back the storage it had, start once with the streams' max bytes lowered, then lower its storage"
	case code == codeNoPeers:
		remedy = "the cluster has not enough servers with JetStream running: start them, or set the streams' replicas to what it has"
	case code == codeReplicasUnsupported:
		remedy = "a single server keeps one replica: set the streams' replicas to 1"
	case code == codeNoStorage || code == codeInsufficient:
		remedy = "the byte limits of all streams do not fit the storage of the server or account: lower the streams' max bytes or give JetStream more"
	case code == codeMaxBytesRequired:
		remedy = "the account demands byte limits: set the streams' max bytes"
	case errors.Is(err, jetstream.ErrStreamNameAlreadyInUse):
		remedy = "it was made by somebody else at the same time with other settings: try again"
	default:
		return err
	}
	return fmt.Errorf("%w: %s", err, remedy)
}

// place asks where the streams are to live.
func (b *Bus) place(ctx context.Context) (place, error) {
	var account *jetstream.AccountInfo
	err := b.patiently(ctx, func(ctx context.Context) (err error) {
		account, err = b.js.AccountInfo(ctx)
		return err
	})
	if err != nil {
		return place{}, fmt.Errorf("ask for the account's limits: %w", err)
	}
	if account.API.Level < apiLevelTTL {
		return place{}, fmt.Errorf("server %s is version %s, too old: use 2.11 or newer", b.nc.ConnectedServerName(), b.nc.ConnectedServerVersion())
	}
	p := place{replicas: b.streams.Replicas, maxPayload: b.nc.MaxPayload()}
	if (p.maxPayload-deliveryOverhead)/2 < deliveryOverhead {
		return place{}, fmt.Errorf("max_payload of the server is %d bytes, too small for events: give it at least 1 MiB, its default", p.maxPayload)
	}
	if p.replicas == 0 {
		p.replicas = 1
		if b.nc.ConnectedClusterName() != "" {
			p.replicas = 3
		}
	}
	limits, tiered := account.Limits, false
	if tier, ok := account.Tiers[fmt.Sprintf("R%d", p.replicas)]; ok {
		limits, tiered = tier.Limits, true
	}
	p.streamBytes = max(limits.StoreMaxStreamBytes, 0)
	p.maxConsumers = max(limits.MaxConsumers, 0)
	p.maxBytes = b.budget(limits.MaxStore, p.replicas, tiered)
	return p, nil
}

// budget is what all streams together may take, in bytes of one replica, -1 for no limit.
func (b *Bus) budget(accountBytes int64, replicas int, tiered bool) int64 {
	if b.streams.MaxBytes != 0 {
		return b.streams.MaxBytes
	}
	budget := int64(-1)
	if accountBytes > 0 {
		budget = accountBytes
		if !tiered { // without tiers every replica counts against the account
			budget /= int64(replicas)
		}
	}
	if b.server != nil {
		if c := b.server.Server().JetStreamConfig(); c != nil && c.MaxStore > 0 && (budget < 0 || c.MaxStore < budget) {
			budget = c.MaxStore
		}
	}
	return budget
}

func (b *Bus) streamInfo(ctx context.Context, name string) (*jetstream.StreamInfo, error) {
	var info *jetstream.StreamInfo
	err := b.patiently(ctx, func(ctx context.Context) error {
		s, err := b.js.Stream(ctx, name)
		if err == nil {
			info = s.CachedInfo()
		}
		return err
	})
	return info, err
}

// fullestSubject counts the messages of the subject that holds most of them.
func (b *Bus) fullestSubject(ctx context.Context, name string) (uint64, error) {
	var most uint64
	err := b.patiently(ctx, func(ctx context.Context) error {
		s, err := b.js.Stream(ctx, name)
		if err != nil {
			return err
		}
		info, err := s.Info(ctx, jetstream.WithSubjectFilter(">"))
		if err != nil {
			return err
		}
		for _, n := range info.State.Subjects {
			most = max(most, n)
		}
		return nil
	})
	return most, err
}

// patiently calls the streams API again while a cluster elects a leader, until ctx ends or electionWait has passed.
func (b *Bus) patiently(ctx context.Context, call func(context.Context) error) error {
	start := time.Now()
	for {
		try, cancel := context.WithTimeout(ctx, apiTry)
		err := call(try)
		cancel()
		if err == nil {
			return nil
		}
		waited := time.Since(start)
		if !passing(err) || waited > electionWait || errorCode(err) == codeNoPeers && waited > peersWait {
			return err
		}
		b.log.Debug("streams API not available, trying again", "error", err)
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-b.closed:
			return ErrClosed
		case <-time.After(apiPause):
		}
	}
}

// passing reports whether an error of the streams API may be gone soon.
func passing(err error) bool {
	switch errorCode(err) {
	case codeNoPeers, codeClusterUnavailable, codeClusterNotLeader:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, nats.ErrTimeout) ||
		errors.Is(err, nats.ErrNoResponders) || errors.Is(err, jetstream.ErrNoStreamResponse)
}

// errorCode is the server's err_code, 0 where the error is no answer of its API.
func errorCode(err error) jetstream.ErrorCode {
	if api, ok := errors.AsType[*jetstream.APIError](err); ok {
		return api.ErrorCode
	}
	return 0
}
