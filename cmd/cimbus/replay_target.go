package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// The kinds of target of a replay.
const (
	toStdout    = "stdout"
	toFile      = "file"
	toSubject   = "subject"
	toRehearsal = "rehearsal"
	toHandler   = "handler"
	toAgent     = "agent"
)

// replayTo is where a replay goes.
type replayTo struct {
	kind   string
	name   string   // a path, a subject, a handler
	agents []string // of toAgent
	diff   bool     // of toRehearsal
}

const replayTargets = "give stdout, file:PATH, subject:SUBJECT, rehearsal:HANDLER, handler:HANDLER or agent:NAME"

// parseReplayTo reads the values of --to.
func parseReplayTo(values []string, diff bool) (replayTo, error) {
	to := replayTo{kind: toStdout, diff: diff}
	for i, value := range values {
		kind, name, named := strings.Cut(value, ":")
		switch {
		case kind == toStdout && !named:
		case !slices.Contains([]string{toFile, toSubject, toRehearsal, toHandler, toAgent}, kind):
			return to, usagef("--to %q: %s", value, replayTargets)
		case name == "":
			return to, usagef("--to %q: nothing stands behind the colon: %s", value, replayTargets)
		}
		if i > 0 && (kind != toAgent || to.kind != toAgent) {
			return to, usagef("--to %s and --to %s: a replay has one target; only agent: may be repeated", values[0], value)
		}
		to.kind, to.name = kind, name
		if kind == toAgent {
			to.agents = append(to.agents, strings.Split(name, ",")...)
		}
	}
	switch to.kind {
	case toAgent:
		for i, agent := range to.agents {
			if slices.Contains(to.agents[:i], agent) {
				return to, usagef("--to: agent %q is named twice", agent)
			}
		}
		to.name = strings.Join(to.agents, ",")
	case toFile:
		path, err := filepath.Abs(to.name)
		if err != nil {
			return to, fmt.Errorf("--to file:%s: %w", to.name, err)
		}
		to.name = path // whoever goes on with it may be elsewhere
	}
	if diff && to.kind != toRehearsal {
		return to, usagef("--diff compares what a handler would make: add --to rehearsal:%s", oncimevent.Name)
	}
	return to, nil
}

// recordedTo reads what String wrote.
func recordedTo(text string) (replayTo, error) {
	plain, diff := strings.CutSuffix(text, diffMark)
	return parseReplayTo([]string{plain}, diff)
}

const diffMark = " --diff"

func (to replayTo) String() string {
	s := to.kind
	if to.name != "" {
		s += ":" + to.name
	}
	if to.diff {
		s += diffMark
	}
	return s
}

// acts tells whether events are handled or delivered again: that is planned and asked about.
func (to replayTo) acts() bool { return to.kind == toHandler || to.kind == toAgent }

// prints tells whether stdout is taken by what is replayed.
func (to replayTo) prints() bool { return to.kind == toStdout || to.kind == toRehearsal }

// open makes the target ready to be used.
func (to replayTo) open(ctx context.Context, b *bus.Bus, a *app, tenant string) (bus.ReplayTarget, error) {
	switch to.kind {
	case toFile:
		return bus.ReplayToFile(to.name), nil
	case toSubject:
		return b.ReplayToSubject(ctx, to.name)
	case toRehearsal:
		return newReplayRehearsal(b, a, to)
	case toHandler:
		return b.ReplayToHandler(ctx, to.name)
	case toAgent:
		return b.ReplayToAgents(bus.ReplayAgents{Tenant: tenant, Agents: to.agents})
	}
	return bus.ReplayToWriter(a.stdout), nil
}
