package subjects_test

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cimbus/cimbus/subjects"
)

func ExampleEvent_Subject() {
	subject, err := subjects.Event{Tenant: "acme", Channel: "WEB", Event: "BOT_SUGGESTION"}.Subject()
	fmt.Println(subject, err)
	subject, err = subjects.Event{Tenant: "acme corp.", Event: "CUSTOMER_LEFT"}.Subject()
	fmt.Println(subject, err)
	// Output:
	// cim.acme.web.BOT_SUGGESTION <nil>
	// cim.acme=20corp=2E._.CUSTOMER_LEFT <nil>
}

func ExampleParseDelivery() {
	d, err := subjects.ParseDelivery("cim-agent.acme.agent-7.onCimEvent.65b3ad18")
	if err != nil {
		fmt.Println(err)
		return
	}
	live, _ := d.Live()
	fmt.Println(d.Agent, "hears it on", live)
	// Output: agent-7 hears it on cim-live.acme.agent-7.onCimEvent.65b3ad18
}

func ExampleDeliveryFilter() {
	mine, err := subjects.DeliveryFilter{Tenant: subjects.Is("acme"), Agent: subjects.Is("agent-7")}.Live()
	fmt.Println(mine, err)
	all, err := subjects.DeliveryFilter{Type: subjects.Is("onCimEvent")}.Subject()
	fmt.Println(all, err)
	// Output:
	// cim-live.acme.agent-7.> <nil>
	// cim-agent.*.*.onCimEvent.* <nil>
}

func ExampleInbox_Contains() {
	inbox := subjects.Inbox{Tenant: "acme", Agent: "agent-7"}
	fmt.Println(inbox.Contains("cim-inbox.acme.agent-7.2ZsGqUPf.1"))
	fmt.Println(inbox.Contains("$JS.API.STREAM.PURGE.CIM_EVENTS"))
	// Output:
	// true
	// false
}

func ExampleError() {
	_, err := subjects.Control{Tenant: "acme", Agent: strings.Repeat("x", 200), Verb: "resume"}.Subject()
	var refused *subjects.Error
	fmt.Println(errors.Is(err, subjects.ErrInvalid), errors.As(err, &refused), refused.Field)
	_, err = subjects.ParseEvent("cim.acme.web")
	fmt.Println(err)
	_, err = subjects.ParseEvent("cim.acme.we%62.X")
	fmt.Println(err)
	// Output:
	// true true agent
	// subject "cim.acme.web" is not cim.<tenant>.<channel>.<event>
	// channel "we%62" holds a byte that must be encoded; a token is 1 to 128 of A-Z a-z 0-9 _ - with =XX (upper-case hex) for every other byte
}
