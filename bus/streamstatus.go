package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// StreamStatus is what a declared stream holds at the moment.
type StreamStatus struct {
	Stream        string     `json:"stream"`
	Exists        bool       `json:"exists"` // false: all that follows is empty
	Created       time.Time  `json:"created,omitzero"`
	RestoredFrom  time.Time  `json:"restored_from,omitzero"` // when the snapshot was taken that it is a copy of; absent if it is none
	RestoredAt    time.Time  `json:"restored_at,omitzero"`
	Messages      uint64     `json:"messages"`
	Bytes         uint64     `json:"bytes"`
	MaxBytes      int64      `json:"max_bytes"`       // -1 = no limit
	MaxAge        float64    `json:"max_age_seconds"` // 0 = no limit
	FirstSequence uint64     `json:"first"`           // of an empty stream the next one to come
	LastSequence  uint64     `json:"last"`
	FirstTime     *time.Time `json:"first_time"` // nil if nothing is stored
	LastTime      *time.Time `json:"last_time"`
	Takes         []string   `json:"takes"`    // the subjects it stores
	Subjects      uint64     `json:"subjects"` // distinct ones stored, see SubjectMemory
	Lost          int        `json:"lost"`     // messages the server knows it lost; anything but 0 is an alarm
	Replicas      int        `json:"replicas"`
	Leader        string     `json:"leader"` // name of the server; "" = none at the moment
	// Peers are the other servers that keep the stream.
	Peers     []PeerStatus     `json:"peers"`
	Consumers []ConsumerStatus `json:"consumers"`
}

// subjectMemory is what a server keeps in memory of each distinct subject of a stream, in bytes, about.
const subjectMemory = 230

// SubjectMemory is about how much memory the stream's distinct subjects cost each server that keeps it, in bytes.
func (s StreamStatus) SubjectMemory() uint64 { return s.Subjects * subjectMemory }

// PeerStatus is a server that keeps a copy of a stream.
type PeerStatus struct {
	Server  string `json:"server"`
	Current bool   `json:"current"` // has everything the leader has
	Offline bool   `json:"offline"`
	Lag     uint64 `json:"lag"` // operations behind the leader
}

// ConsumerStatus is how far a consumer of a stream is.
type ConsumerStatus struct {
	Name         string     `json:"name"`
	Durable      bool       `json:"durable"`
	Lag          uint64     `json:"lag"`         // messages not done: Pending and AckPending
	Pending      uint64     `json:"pending"`     // never delivered yet
	AckPending   int        `json:"ack_pending"` // delivered and not acknowledged
	Redelivered  int        `json:"redelivered"` // of those, delivered more than once
	AckFloor     uint64     `json:"ack_floor"`   // every message up to this sequence is done
	LastActivity *time.Time `json:"last_activity"`
	Pinned       bool       `json:"pinned"`       // one of several clients has all the work
	Pulls        int        `json:"pulls"`        // requests for messages that wait
	PausedUntil  *time.Time `json:"paused_until"` // nil = it is not paused; UntilResumed = nobody said when it goes on
}

// Streams tells the status of every declared stream, in the order of the declaration, consumers by name.
func (b *Bus) Streams(ctx context.Context) ([]StreamStatus, error) {
	declared := b.streams.declare(place{maxBytes: -1, replicas: 1})
	all := make([]StreamStatus, 0, len(declared))
	for _, s := range declared {
		status, err := b.streamStatus(ctx, s.Name)
		if err != nil {
			return nil, fmt.Errorf("status of stream %s: %w", s.Name, err)
		}
		all = append(all, status)
	}
	return all, nil
}

func (b *Bus) streamStatus(ctx context.Context, name string) (StreamStatus, error) {
	status := StreamStatus{Stream: name, Peers: []PeerStatus{}, Consumers: []ConsumerStatus{}}
	err := b.patiently(ctx, func(ctx context.Context) error {
		s, err := b.js.Stream(ctx, name)
		if err != nil {
			return err
		}
		status.fill(s.CachedInfo())
		status.Consumers = status.Consumers[:0]
		consumers := s.ListConsumers(ctx)
		for info := range consumers.Info() {
			status.Consumers = append(status.Consumers, consumerStatus(info))
		}
		return consumers.Err()
	})
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		return status, nil
	}
	slices.SortFunc(status.Consumers, func(x, y ConsumerStatus) int { return cmp.Compare(x.Name, y.Name) })
	return status, err
}

func (s *StreamStatus) fill(info *jetstream.StreamInfo) {
	state := info.State
	s.Exists, s.Created = true, info.Created
	s.RestoredFrom, s.RestoredAt = restoredFrom(info.Config.Metadata)
	s.Messages, s.Bytes, s.MaxBytes, s.MaxAge = state.Msgs, state.Bytes, info.Config.MaxBytes, info.Config.MaxAge.Seconds()
	s.FirstSequence, s.LastSequence, s.Subjects = state.FirstSeq, state.LastSeq, state.NumSubjects
	s.Replicas, s.Takes = info.Config.Replicas, info.Config.Subjects
	s.FirstTime, s.LastTime = nil, nil
	if state.Msgs > 0 {
		s.FirstTime, s.LastTime = &state.FirstTime, &state.LastTime
	}
	if state.Lost != nil {
		s.Lost = len(state.Lost.Msgs)
	}
	s.Peers = s.Peers[:0]
	if c := info.Cluster; c != nil {
		s.Leader = c.Leader
		for _, p := range c.Replicas {
			s.Peers = append(s.Peers, PeerStatus{Server: p.Name, Current: p.Current, Offline: p.Offline, Lag: p.Lag})
		}
	}
}

func consumerStatus(info *jetstream.ConsumerInfo) ConsumerStatus {
	c := ConsumerStatus{
		Name: info.Name, Durable: info.Config.Durable != "",
		Lag: info.NumPending + uint64(info.NumAckPending), Pending: info.NumPending, AckPending: info.NumAckPending,
		Redelivered: info.NumRedelivered, AckFloor: info.AckFloor.Stream, LastActivity: info.Delivered.Last,
		Pulls: info.NumWaiting,
	}
	for _, g := range info.PriorityGroups {
		c.Pinned = c.Pinned || g.PinnedClientID != ""
	}
	if info.Paused {
		c.PausedUntil = info.Config.PauseUntil
	}
	return c
}
