package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/stretchr/testify/require"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/bustest"
)

// played is a daemon on which ann joined c1, in which there were four messages, and ben c2, in which there was one.
func played(t *testing.T, args ...string) served {
	t.Helper()
	d := serve(t, args...)
	for _, who := range []string{"ann c1", "ben c2"} {
		agent, conversation, _ := strings.Cut(who, " ")
		d.do(t, "", "conversation", "join", "--tenant", "acme", "--conversation", conversation, "--agent", agent)
	}
	for i, conversation := range []string{"c1", "c1", "c2", "c1", "c1"} {
		d.do(t, event(fmt.Sprint("m", i+1), "CUSTOMER_MESSAGE", conversation), "publish", "--tenant", "acme", "--channel", "web")
	}
	d.do(t, event("t", "TYPING_INDICATOR", "c9"), "publish", "--tenant", "acme", "--channel", "web")
	d.receive(t, "0", 5)
	d.do(t, "", "agent", "--tenant", "acme", "--agent", "ben", "--after", "0", "--count", "2")
	return d
}

func sequences(t *testing.T, ndjson string) []uint64 {
	t.Helper()
	var all []uint64
	for each := range strings.Lines(ndjson) {
		e, err := bus.ReadStoredEvent([]byte(each))
		require.NoError(t, err, each)
		all = append(all, e.Sequence)
	}
	return all
}

func TestReplayGivesWhatIsSelectedAsItIsStored(t *testing.T) {
	d := played(t)
	for args, want := range map[string][]uint64{
		"":                                      {1, 2, 3, 4, 5, 6, 7, 8},
		"--from 3 --until 5":                    {3, 4, 5},
		"--from 1h --until now":                 {1, 2, 3, 4, 5, 6, 7, 8},
		"--channel web --event CUSTOMER_*":      {3, 4, 5, 6, 7},
		"--tenant acme --conversation c2":       {2, 5},
		"--id m4":                               {6},
		"--tenant nobody":                       nil,
		"--event AGENT_SUBSCRIBED --from today": {1, 2},
		"--pace 2000/s --id m4":                 {6},
		"--pace 1000x":                          {1, 2, 3, 4, 5, 6, 7, 8},
	} {
		got := invoke(t, "", d.on(append([]string{"replay"}, strings.Fields(args)...)...)...)
		require.Zero(t, got.code, "%s: %s", args, got.stderr)
		require.Equal(t, want, sequences(t, got.stdout), args)
		require.Regexp(t, `^replay \w{22}: `+plural(len(want), "event")+` to stdout in `, got.stderr)
	}
}

// replayGolden makes the ids and times of a table the same.
func replayGolden(text string) string {
	text = regexp.MustCompile(`\b[0-9A-Za-z]{22}\b`).ReplaceAllString(text, "aReplayOfItsOwnIdHere0")
	text = regexp.MustCompile(`\(\d+/s\)`).ReplaceAllString(text, "(1/s)")
	return golden(text)
}

func TestReplayToAgentsShowsItsPlanAsksAndGoesToTheirOwnType(t *testing.T) {
	d := played(t)
	to := []string{"replay", "--tenant", "acme", "--conversation", "c1", "--to", "agent:ann", "--operator", "eva"}
	const plan = `TENANT  CONVERSATION  EVENTS
acme    c1                 5
5 of 5 events of 1 conversation, 1.0 KiB, 1 (2026-01-31 12:00:00.000) to 7 (2026-01-31 12:00:00.000), to agent:ann
`
	asked := invoke(t, "", d.on(to...)...)
	require.Equal(t, exitFailed, asked.code)
	require.Equal(t, plan, regexp.MustCompile(`[\d.]+ (Ki)?B,`).ReplaceAllString(replayGolden(asked.stdout), "1.0 KiB,"))
	require.Equal(t, "nothing was done: add --yes to replay 5 events to agent:ann\n", asked.stderr)
	require.Empty(t, d.do(t, "", "replay", "ls"))

	shown := invoke(t, "", d.on(append(to, "--plan", "--json")...)...)
	require.Zero(t, shown.code)
	l := lines[replayPlanLine](t, shown.stdout)[0]
	require.Equal(t, 5, l.ToDo)
	require.Equal(t, []conversationCount{{"acme", "c1", 5}}, l.Conversations)

	done := invoke(t, "", d.on(append(to, "--yes", "--json", "--replay-id", "again")...)...)
	require.Zero(t, done.code, done.stderr)
	record := lines[bus.ReplayRecord](t, done.stdout)[0]
	require.Equal(t, bus.ReplayDone, record.State)
	require.EqualValues(t, 5, record.Events)
	var kinds []string
	for each := range strings.Lines(d.do(t, "", "agent", "--tenant", "acme", "--agent", "ann", "--after", "0", "--count", "10")) {
		kinds = append(kinds, regexp.MustCompile(`cim-agent\.acme\.ann\.(\w+)\.c1`).FindStringSubmatch(each)[1])
	}
	require.Equal(t, append(strings.Fields(strings.Repeat("onCimEvent ", 5)), strings.Fields(strings.Repeat("replay ", 5))...), kinds)

	for _, c := range []struct{ args, says string }{
		{"--tenant acme --to agent:ann --yes", `nothing was done: agent "ann" is and was no member of 1 conversation: c2; select conversations`},
		{"--tenant acme --to agent:ann,ben --to agent:cid --yes", `agent "cid" is and was no member of 2 conversations: c1, c2;`},
		{"--to handler:onCimEvent --yes", "reaches live agents; replay to agent:<name> for agents, or to rehearsal:onCimEvent"},
		{"--to handler:crm --yes", "handler crm: replay refused: no handler of that name runs on this bus"},
		{"--tenant acme --conversation c1 --to agent:ann --yes --replay-id again", "there is a replay of this id already: cimbus replay show again tells of it, cimbus replay resume again goes on with it"},
	} {
		got := invoke(t, "", d.on(append([]string{"replay"}, strings.Fields(c.args)...)...)...)
		require.Equal(t, exitFailed, got.code, c.args)
		require.Contains(t, got.stderr, c.says)
	}
	require.Contains(t, invoke(t, "", d.on("replay", "resume", "again", "--yes")...).stderr, "the replay is done: start a new one")
}

func TestReplayListsWhoReplayedWhatWhereToAndHowFar(t *testing.T) {
	d := played(t)
	taken := write(t, "taken", "mine\n")
	d.do(t, "", "replay", "--tenant", "acme", "--event", "CUSTOMER_*", "--replay-id", "first", "--operator", "eva", "--to", "subject:copies.web")
	failed := invoke(t, "", d.on("replay", "--conversation", "c1", "--replay-id", "second", "--operator", "max", "--from", "2", "--until", "4", "--to", "file:"+taken)...)
	require.Equal(t, exitFailed, failed.code)
	require.Contains(t, failed.stderr, "the file is there already, and left as it is: name another one")
	left, err := os.ReadFile(taken)
	require.NoError(t, err)
	require.Equal(t, "mine\n", string(left))

	list := strings.ReplaceAll(replayGolden(d.do(t, "", "replay", "ls")), "file:"+taken, "file:x")
	list = regexp.MustCompile(`file:\S+`).ReplaceAllString(list, "file:…")
	require.Equal(t, `ID      STATE   STARTED                  OPERATOR  EVENTS  FROM  UPTO  OF  WHAT                           TO
first   done    2026-01-31 12:00:00.000  eva            5     1     8   8  tenant acme, event CUSTOMER_*  subject:copies.web
second  failed  2026-01-31 12:00:00.000  max            0     2     1   4  conversation c1                file:…
`, list)
	require.Equal(t, 1, strings.Count(d.do(t, "", "replay", "ls", "--state", "failed", "--json"), `"id":"second"`))
	require.NotContains(t, d.do(t, "", "replay", "ls", "--operator", "eva", "--to", "subject:", "--newer-than", "1h"), "second")
	require.Empty(t, d.do(t, "", "replay", "ls", "--older-than", "1h"))
	show := d.do(t, "", "replay", "show", "second")
	require.Regexp(t, `(?m)^error +.*the file is there already`, show)
	require.Regexp(t, `(?m)^  1  max +\S+ \S+  \S+ \S+ +1 +0$`, show)

	// Once the place is free, it goes on.
	require.NoError(t, os.Remove(taken))
	d.do(t, "", "replay", "resume", "second")
	left, err = os.ReadFile(taken)
	require.NoError(t, err)
	require.Equal(t, []uint64{3, 4}, sequences(t, string(left)))
	require.NoError(t, os.WriteFile(taken, append(left, left...), 0o600))
}

func TestAReplayStoppedFromElsewhereGoesOnWithoutRepeatingAnything(t *testing.T) {
	d := played(t)
	path := filepath.Join(t.TempDir(), "events")
	r := start(t, d.on("replay", "--to", "file:"+path, "--pace", "2/s", "--replay-id", "slow")...)
	bustest.Eventually(t, patience, func() error {
		if got := d.do(t, "", "replay", "ls", "--state", "running"); !strings.Contains(got, "slow") {
			return fmt.Errorf("not listed: %s", got)
		}
		return nil
	})
	refused := invoke(t, "", d.on("replay", "resume", "slow")...)
	require.Equal(t, exitFailed, refused.code)
	require.Contains(t, refused.stderr, "the replay runs: stop it first with cimbus replay stop slow")
	stop := invoke(t, "", d.on("replay", "stop", "slow")...)
	require.Zero(t, stop.code, stop.stderr)
	require.Contains(t, stop.stderr, "go on with: cimbus replay resume slow")
	require.Equal(t, exitFailed, r.wait())
	require.Contains(t, r.stderr.String(), "replay slow: stopped behind event ")
	require.Contains(t, invoke(t, "", d.on("replay", "stop", "slow")...).stderr, `does not run: it is stopped`)
	d.do(t, "", "replay", "resume", "slow")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, []uint64{1, 2, 3, 4, 5, 6, 7, 8}, sequences(t, string(text)))
}

// interruptedFile runs a slow replay to a file until it has more than so many bytes, interrupts it and returns what is there.
func interruptedFile(t *testing.T, path string, bytes int, args ...string) []byte {
	t.Helper()
	r := start(t, args...)
	bustest.Eventually(t, patience, func() error {
		text, err := os.ReadFile(path)
		if err == nil && len(text) <= bytes {
			err = fmt.Errorf("nothing new there yet")
		}
		return err
	})
	r.interrupt()
	require.Equal(t, exitFailed, r.wait())
	require.Contains(t, r.stderr.String(), "go on with: cimbus replay resume slow")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return text
}

func TestAFileThatSomebodyElseWroteToIsNotGoneOnWith(t *testing.T) {
	d := played(t)
	path := filepath.Join(t.TempDir(), "events")
	whole := interruptedFile(t, path, 0, d.on("replay", "--to", "file:"+path, "--pace", "4/s", "--replay-id", "slow")...)
	for _, text := range []string{string(whole) + "mine\n", string(whole) + string(whole), "mine\n", strings.Repeat("m", len(whole)) + "\nmine\n"} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		got := invoke(t, "", d.on("replay", "resume", "slow")...)
		require.Equal(t, exitFailed, got.code)
		require.Contains(t, got.stderr, "the file is not as the replay left it")
		left, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Equal(t, text, string(left))
	}
	require.NoError(t, os.Remove(path))
	gone := invoke(t, "", d.on("replay", "resume", "slow")...)
	require.Equal(t, exitFailed, gone.code)
	require.Contains(t, gone.stderr, "put it back where it was")
}

func TestWhatAFileLacksOrHasOfATornLineIsWrittenAgain(t *testing.T) {
	d := played(t)
	path := filepath.Join(t.TempDir(), "events")
	whole := interruptedFile(t, path, 0, d.on("replay", "--to", "file:"+path, "--pace", "4/s", "--replay-id", "slow")...)
	require.NoError(t, os.WriteFile(path, whole[:len(whole)-9], 0o600), "as a power cut leaves it")
	whole = interruptedFile(t, path, len(whole), d.on("replay", "resume", "slow")...)
	require.NoError(t, os.WriteFile(path, append(whole, strings.Repeat("x", 64<<10)...), 0o600))
	d.do(t, "", "replay", "resume", "slow")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, []uint64{1, 2, 3, 4, 5, 6, 7, 8}, sequences(t, string(text)))
	require.Contains(t, d.do(t, "", "replay", "show", "slow", "--json"), `"events":8,`)
}

func TestReplayToASubjectGivesBodiesAsTheyAreAndSaysWhereTheyComeFrom(t *testing.T) {
	d := played(t)
	nc, err := nats.Connect(d.NATS)
	require.NoError(t, err)
	defer nc.Close()
	sub, err := nc.SubscribeSync("copies.>")
	require.NoError(t, err)
	require.NoError(t, nc.Flush())
	d.do(t, "", "replay", "--id", "m4", "--to", "subject:copies.>", "--replay-id", "again")
	m, err := sub.NextMsg(patience)
	require.NoError(t, err)
	require.Equal(t, "copies.cim.acme.web.CUSTOMER_MESSAGE", m.Subject)
	require.JSONEq(t, event("m4", "CUSTOMER_MESSAGE", "c1"), string(m.Data))
	for key, want := range map[string]string{
		bus.HeaderSequence: "6", bus.HeaderReplayID: "again", bus.HeaderEventID: "m4", bus.HeaderSourceSubject: "cim.acme.web.CUSTOMER_MESSAGE",
	} {
		require.Equal(t, want, m.Header.Get(key), key)
	}
	for _, subject := range []string{"cim.acme.web.X", "CIM.x", "cim-agent.acme.ann.onCimEvent.c1", "$JS.API.STREAM.PURGE.CIM_EVENTS", "_INBOX.x", "a.*.b", "a..b", ">", "a b"} {
		got := invoke(t, "", d.on("replay", "--to", "subject:"+subject)...)
		require.Equal(t, exitFailed, got.code, subject)
		require.Contains(t, got.stderr, "not a subject for a replay", subject)
	}
}

func TestARehearsalShowsWhatIsMadeAndThatItIsWhatWasDelivered(t *testing.T) {
	d := played(t)
	before := d.do(t, "", "streams", "info", "--json")
	got := invoke(t, "", d.on("replay", "--tenant", "acme", "--to", "rehearsal:onCimEvent", "--json", "--from", "3", "--until", "3")...)
	require.Zero(t, got.code, got.stderr)
	l := lines[rehearsedLine](t, got.stdout)
	require.Len(t, l, 1)
	require.Equal(t, "ann", l[0].Deliveries[0].Agent)
	require.Contains(t, got.stderr, "1 delivery, nothing was sent")

	got = invoke(t, "", d.on("replay", "--to", "rehearsal:onCimEvent", "--diff")...)
	require.Zero(t, got.code, got.stderr)
	require.Empty(t, got.stdout)
	require.Contains(t, got.stderr, "no event differs from what was delivered, nothing was sent")
	for i, s := range lines[streamLine](t, d.do(t, "", "streams", "info", "--json")) {
		// The worker writes index entries and checkpoints when the deliveries are out.
		if s.Stream != bus.StreamReplays && s.Stream != bus.StreamConversations && s.Stream != bus.StreamIndex {
			require.Equal(t, lines[streamLine](t, before)[i].Messages, s.Messages, s.Stream)
		}
	}
	require.Contains(t, invoke(t, "", d.on("replay", "--to", "rehearsal:crm")...).stderr, "this binary has only onCimEvent to rehearse")
}

func TestAReplayThatCannotBeRecordedIsShownAllTheSame(t *testing.T) {
	url := jetStream(t, func(o *server.Options) {
		o.Users = []*server.User{
			{Username: "bus", Password: "pw"},
			{Username: "reader", Password: "pw", Permissions: &server.Permissions{Publish: &server.SubjectPermission{Deny: []string{"cim-replay.>", "cim.>"}}}},
		}
	})
	require.Zero(t, invoke(t, "", "streams", "apply", "--server", as("bus", url)).code)
	require.Zero(t, invoke(t, message("1"), "publish", "--tenant", "acme", "--server", as("bus", url)).code)
	got := invoke(t, "", "replay", "--server", as("reader", url))
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, []uint64{1}, sequences(t, got.stdout))
	require.Contains(t, got.stderr, "the replay cannot be recorded")

	deleteStream(t, as("bus", url), bus.StreamReplays)
	got = invoke(t, "", "replay", "--server", as("bus", url))
	require.Zero(t, got.code, got.stderr)
	require.Equal(t, []uint64{1}, sequences(t, got.stdout))
	require.Contains(t, got.stderr, "run cimbus streams apply")
}

func TestAReplayIsGoneOnWithByACommandThatAShellReads(t *testing.T) {
	d := played(t)
	d.do(t, "", "replay", "--replay-id", "ann's own")
	again := invoke(t, "", d.on("replay", "--replay-id", "ann's own")...)
	require.Equal(t, exitFailed, again.code)
	require.Contains(t, again.stderr, `cimbus replay resume 'ann'\''s own' goes on with it`)
}

func TestAReplayThatMakesNoSenseSaysWhatDoes(t *testing.T) {
	d := played(t)
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--to nowhere", exitUsage, "give stdout, file:PATH, subject:SUBJECT, rehearsal:HANDLER, handler:HANDLER or agent:NAME"},
		{"--to file:", exitUsage, "nothing stands behind the colon"},
		{"--to stdout --to file:x", exitUsage, "a replay has one target; only agent: may be repeated"},
		{"--to agent:ann", exitUsage, "agents belong to a tenant: add --tenant"},
		{"--tenant acme --to agent:ann,bob --to agent:ann", exitUsage, `agent "ann" is named twice`},
		{"--tenant acme --to agent:ann --follow", exitUsage, "gets what is new anyway"},
		{"--follow --until 3", exitUsage, "leave out --until"},
		{"--diff", exitUsage, "add --to rehearsal:onCimEvent"},
		{"--pace fast", exitUsage, `pace "fast": give max, a multiple of the original pace`},
		{"--pace 0x", exitUsage, `pace "0x"`},
		{"--pace NaN/s", exitUsage, `pace "NaN/s"`},
		{"--event [", exitUsage, "write a name, or a pattern with * and ?"},
		{"--tenant=", exitUsage, "--tenant is empty: say which, or leave it out"},
		{"--from soon", exitUsage, `--from "soon": give a sequence, an age`},
		{"--customer x", exitUsage, "unknown flag: --customer"},
		{"--from 2099-01-01", exitFailed, "is in the future: CIM_EVENTS holds 1 ("},
		{"--from 99", exitFailed, "sequence 99 is beyond the end: CIM_EVENTS holds 1 ("},
		{"--until abcde-3-abc", exitFailed, "position of another stream"},
		{"resume", exitUsage, "give the id of one replay"},
		{"resume nothing", exitFailed, "no such replay: cimbus replay ls lists them"},
		{"resume nothing --tenant acme", exitUsage, "unknown flag: --tenant"},
		{"show nothing", exitFailed, "no such replay"},
		{"stop nothing", exitFailed, "no such replay"},
		{"lss", exitUsage, `unknown command "lss"`},
		{"ls --state odd", exitUsage, "give running, stopped, failed, done or broken-off"},
		{"ls --newer-than odd", exitUsage, "give an age"},
	} {
		got := invoke(t, "", d.on(append([]string{"replay"}, strings.Fields(c.args)...)...)...)
		require.Equal(t, c.code, got.code, "%s: %s", c.args, got.stderr)
		require.Contains(t, got.stderr, c.says, c.args)
		require.Empty(t, got.stdout)
	}
}

func TestAFollowingReplayGoesOnWithWhatIsStoredLater(t *testing.T) {
	d := played(t)
	r := start(t, d.on("replay", "--follow", "--from", "7", "--event", "CUSTOMER_*")...)
	r.saw(&r.stdout, `"sequence":7`)
	d.do(t, event("late", "CUSTOMER_MESSAGE", "c1"), "publish", "--tenant", "acme", "--channel", "web")
	r.saw(&r.stdout, `"id":"late"`)
	r.interrupt()
	require.Zero(t, r.wait(), r.stderr.String())
	require.Equal(t, []uint64{7, 9}, sequences(t, r.stdout.String()))
}
