package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mattn/go-isatty"

	"github.com/cimbus/cimbus/bus"
	"github.com/cimbus/cimbus/bus/cim"
	"github.com/cimbus/cimbus/bus/embedded"
	"github.com/cimbus/cimbus/handlers/oncimevent"
)

// demoView shows the demo: lines for people, or one JSON object a station. It fits into 100 columns and needs no terminal.
type demoView struct {
	w      io.Writer
	json   bool
	colour bool
	cells  []string // the agents of the conversation's table
	err    error    // the first failure to write
}

func newDemoView(a *app) *demoView {
	return &demoView{w: a.stdout, json: a.json, colour: isTerminal(a.stdout) && a.env("NO_COLOR") == "" && a.env("TERM") != "dumb"}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd()) // /dev/null is a character device, too
}

// demoStation is a place the sample event passes.
type demoStation struct {
	Station    string          `json:"station"`
	MS         float64         `json:"ms"` // since the service began to publish
	Stream     string          `json:"stream,omitempty"`
	Sequence   uint64          `json:"seq,omitempty"`
	Subject    string          `json:"subject,omitempty"`
	Recipients []demoRecipient `json:"recipients,omitempty"`
	Agent      string          `json:"agent,omitempty"`
	Bytes      int             `json:"bytes,omitempty"`

	at time.Time
}

type demoRecipient struct {
	Agent string `json:"agent"`
	Role  string `json:"role"`
}

// demoRow is an event of the live conversation.
type demoRow struct {
	Station  string         `json:"station"`
	Event    string         `json:"event"`
	From     string         `json:"from"`
	Says     string         `json:"says"`
	Subject  string         `json:"subject"`
	Sequence uint64         `json:"seq"`
	Received []demoReceived `json:"received"`
	Away     []string       `json:"away,omitempty"`
}

type demoReceived struct {
	Agent    string  `json:"agent"`
	Type     string  `json:"type"`
	MS       float64 `json:"ms"` // since the service began to publish
	Position string  `json:"position"`
}

// demoVerdict is the last line.
type demoVerdict struct {
	Station    string   `json:"station"`
	OK         bool     `json:"ok"`
	Events     int      `json:"events"`
	Deliveries int      `json:"deliveries"`
	Seconds    float64  `json:"seconds"`
	Problems   []string `json:"problems"`
}

// The colours, of which there are few.
const (
	bold  = "1"
	faint = "2"
	red   = "31"
	green = "32"
	amber = "33"
)

func (v *demoView) paint(colour, s string) string {
	if !v.colour || s == "" {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

func (v *demoView) printf(format string, args ...any) {
	if v.err == nil {
		_, v.err = fmt.Fprintf(v.w, format, args...)
	}
}

func (v *demoView) line(o any) {
	if v.err == nil {
		v.err = line(v.w, o)
	}
}

// pad fills s up to a width, or cuts it down to that.
func pad(s string, width int) string {
	if n := utf8.RuneCountInString(s); n <= width {
		return s + strings.Repeat(" ", width-n)
	}
	return string([]rune(s)[:width-1]) + "…"
}

func (v *demoView) started(s *embedded.Server) {
	if v.json {
		v.line(struct {
			Station    string              `json:"station"`
			NATS       string              `json:"nats"`
			WebSocket  string              `json:"websocket"`
			Store      string              `json:"store"`
			Durability embedded.Durability `json:"durability"`
		}{"started", s.NATSURL(), s.WebSocketURL(), s.StoreDir(), s.Durability()})
		return
	}
	v.printf("\n%s  %s\n             %s\n", v.paint(bold, "cimbus demo"),
		v.paint(faint, fmt.Sprintf("everything in this process: %s, durability %s", s.NATSURL(), s.Durability())), v.paint(faint, s.StoreDir()))
}

func (v *demoView) joined(agent, role, conversation string) {
	if v.json {
		v.line(struct {
			Station      string `json:"station"`
			Agent        string `json:"agent"`
			Role         string `json:"role"`
			Conversation string `json:"conversation"`
		}{"joined", agent, role, conversation})
		return
	}
	v.printf("\n%s\n\n", v.paint(bold, "The road of one event"))
	v.printf("Agent %s has joined conversation %s.\nA service publishes an event with a plain NATS client:\n\n", agent, conversation)
}

// demoStations are the words for the stations, in plain English.
func (s demoStation) String() string {
	switch s.Station {
	case "published":
		return fmt.Sprintf("%s   %s", s.Subject, size(s.Bytes))
	case "acknowledged":
		return fmt.Sprintf("%s %d   the service knows that it is stored", s.Stream, s.Sequence)
	case "delivered":
		var who []string
		for _, r := range s.Recipients {
			who = append(who, r.Agent+" ("+r.Role+")")
		}
		return fmt.Sprintf("%s %d   recipients: %s", s.Stream, s.Sequence, strings.Join(who, ", "))
	case "received":
		return fmt.Sprintf("by %s   %s", s.Agent, size(s.Bytes))
	}
	return fmt.Sprintf("%s %d", s.Stream, s.Sequence)
}

func (v *demoView) road(began time.Time, stations []demoStation) {
	last := began
	for _, s := range stations {
		s.MS = millis(s.at.Sub(began))
		if v.json {
			v.line(s)
			continue
		}
		step := ""
		if s.Station != "published" {
			step = fmt.Sprintf("+%.1f", millis(s.at.Sub(last)))
		}
		v.printf("  %5.1f ms %s  %s  %s\n", s.MS, v.paint(faint, fmt.Sprintf("%6s", step)), v.paint(bold, pad(s.Station, 12)), s)
		if s.Station == "delivered" || s.Station == "committed" || s.Station == "received" {
			v.printf("%33s%s\n", "", v.paint(faint, s.Subject))
		}
		last = s.at
	}
}

// delivery shows a body as the agent has it, each value as far as it fits.
func (v *demoView) delivery(r received) {
	if v.json {
		v.line(struct {
			Station  string          `json:"station"`
			Agent    string          `json:"agent"`
			Type     string          `json:"type"`
			Subject  string          `json:"subject"`
			Sequence uint64          `json:"sequence"`
			Position string          `json:"position"`
			Payload  json.RawMessage `json:"payload"`
		}{"delivery", r.Agent, r.Type, r.Subject, r.Sequence, r.Position.String(), r.Body})
		return
	}
	v.printf("\nWhat %s received, %s:\n\n", r.Agent, r.Type)
	dec := json.NewDecoder(strings.NewReader(string(r.Body)))
	if _, err := dec.Token(); err != nil {
		v.err = fmt.Errorf("delivery: %w", err)
		return
	}
	for dec.More() {
		name, err := dec.Token()
		var value json.RawMessage
		if err == nil {
			err = dec.Decode(&value)
		}
		if err != nil {
			v.err = fmt.Errorf("delivery: %w", err)
			return
		}
		v.printf("  %-16s%s\n", name, v.value(value))
	}
}

// value is one line of a delivery: objects are cut and their size told.
func (v *demoView) value(value json.RawMessage) string {
	const room = 60
	s := string(value)
	if utf8.RuneCountInString(s) <= room {
		return s
	}
	return pad(s, room) + v.paint(faint, "  "+size(len(value)))
}

// The columns of the conversation: sequence, event, who says what, then one per agent.
const (
	columnEvent = 26
	columnFrom  = 6
	columnSays  = 38
	columnAgent = 11

	away = "· away"
)

func (v *demoView) curtain(agents []string) {
	v.cells = agents
	if v.json {
		return
	}
	v.printf("\n%s  %s\n\n", v.paint(bold, "A live conversation"), v.paint(faint, "milliseconds from the service's publish to the agent's hand"))
	cells := map[string]string{}
	for _, agent := range agents {
		cells[agent] = agent
	}
	v.table(faint, "seq", "event", "", "", cells)
}

// table prints a row; cells are by agent.
func (v *demoView) table(colour, seq, event, from, says string, cells map[string]string) {
	var row strings.Builder
	row.WriteString("  " + v.paint(faint, fmt.Sprintf("%3s", seq)) + "  " + pad(event, columnEvent) + v.paint(faint, pad(from, columnFrom)) + pad(says, columnSays))
	for _, agent := range v.cells {
		cell, paint := cells[agent], colour
		if cell == away {
			paint = faint
		}
		row.WriteString(v.paint(paint, cell) + strings.Repeat(" ", columnAgent-utf8.RuneCountInString(cell)))
	}
	v.printf("%s\n", strings.TrimRight(row.String(), " "))
}

// note is a line between the rows.
func (v *demoView) note(colour, format string, args ...any) {
	v.printf("       %s\n", v.paint(colour, fmt.Sprintf(format, args...)))
}

func (v *demoView) row(r demoRow) {
	r.Station = "event"
	if v.json {
		v.line(r)
		return
	}
	cells, leaver := map[string]string{}, ""
	for _, got := range r.Received {
		cells[got.Agent] = fmt.Sprintf("✓ %.1f", got.MS)
		if got.Type == oncimevent.Notice {
			leaver = got.Agent
		}
	}
	for _, agent := range r.Away {
		cells[agent] = away
	}
	v.table(green, fmt.Sprint(r.Sequence), r.Event, r.From, r.Says, cells)
	if leaver != "" {
		v.note(faint, "%s got %s instead, and gets nothing after it", leaver, oncimevent.Notice)
	}
}

func (v *demoView) cut(agent string, at bus.Position) {
	if v.json {
		v.line(struct {
			Station  string `json:"station"`
			Agent    string `json:"agent"`
			Position string `json:"position"`
		}{"dropped", agent, at.String()})
		return
	}
	v.note(amber, "%s's connection is closed; what he has is his position, %s", agent, at)
}

func (v *demoView) back(agent string, at bus.Position, l *ledger, missed []received, began time.Time) {
	names := map[uint64]string{}
	for _, e := range l.events {
		names[e.sequence] = e.name
	}
	if !v.json {
		v.note(amber, "%s connects again and resumes after it; milliseconds since he dialled", agent)
	}
	got := make([]demoReceived, 0, len(missed))
	for _, r := range missed {
		ms := millis(r.at.Sub(began))
		got = append(got, demoReceived{Agent: r.Agent, Type: r.Type, MS: ms, Position: r.Position.String()})
		if !v.json {
			v.table(amber, fmt.Sprint(r.Sequence), names[r.Sequence], "", "missed, from the log", map[string]string{agent: fmt.Sprintf("✓ %.1f", ms)})
		}
	}
	if v.json {
		v.line(struct {
			Station  string         `json:"station"`
			Agent    string         `json:"agent"`
			After    string         `json:"after"`
			Received []demoReceived `json:"received"`
		}{"resumed", agent, at.String(), got})
	}
}

func (v *demoView) verdict(d demoVerdict) {
	d.Station = "verdict"
	if v.json {
		if d.Problems == nil {
			d.Problems = []string{}
		}
		v.line(d)
		return
	}
	what := fmt.Sprintf("%d events, %d deliveries", d.Events, d.Deliveries)
	if d.OK {
		v.printf("\n%s  %s\n\n", v.paint(green, "✓ "+what+", each exactly once, in order."), v.paint(faint, fmt.Sprintf("%.1f s", d.Seconds)))
		return
	}
	v.printf("\n%s\n", v.paint(red, "✗ "+what+" were due, and not all is well:"))
	for _, p := range d.Problems {
		v.printf("  %s\n", p)
	}
	v.printf("\n")
}

// hints are what to try on the demo's server.
func (v *demoView) hints(s *embedded.Server, conversation string) {
	if v.json {
		return
	}
	program, server := invocation(), "--server "+s.NATSURL()
	event := func(id string) string {
		return fmt.Sprintf(`{"id":"%s","name":"%s","conversationId":"%s"}`, id, cim.CustomerMessage, conversation)
	}
	v.printf("It goes on until Ctrl-C. ben is still in the conversation; in another terminal:\n\n")
	for _, hint := range [][2]string{
		{"everything ben received so far, and what comes", program + " agent " + server + " --tenant acme --agent ben --after 0"},
		{"say something to him", "echo '" + event("try-1") + "' |\n    " + program + " publish " + server + " --tenant acme --channel web"},
		{"the same with the nats command", "nats " + server + " req cim.acme.web." + cim.CustomerMessage + " \\\n    '" + event("try-2") + "'"},
		{"listen as a desk without a library does", "nats " + server + " sub 'cim-live.acme.ben.>'"},
		{"watch all of it", program + " tail " + server},
		{"from a browser", s.WebSocketURL() + "  (npm: @nats-io/nats-core)"},
	} {
		v.printf("  %s\n  %s\n\n", v.paint(faint, "# "+hint[0]), hint[1])
	}
}

// invocation is how this program was called: `go run` leaves nothing that could be called again.
func invocation() string {
	if strings.Contains(os.Args[0], "go-build") {
		return "go run ./cmd/cimbus"
	}
	return os.Args[0]
}
