package bustest_test

import (
	"fmt"

	"github.com/cimbus/cimbus/bus/bustest"
)

func ExampleCheck() {
	event := func(s uint64, name, agent string) bustest.Event {
		return bustest.Event{Sequence: s, Tenant: "acme", Conversation: "c1", Name: name, Agent: agent}
	}
	toAda := func(s uint64) bustest.Delivery {
		return bustest.Delivery{Tenant: "acme", Agent: "ada", Type: "onCimEvent", Conversation: "c1", Sequence: s}
	}
	report := bustest.Check(bustest.History{
		Events:     []bustest.Event{event(1, "AGENT_SUBSCRIBED", "ada"), event(2, "CUSTOMER_MESSAGE", ""), event(3, "CUSTOMER_MESSAGE", "")},
		Deliveries: []bustest.Delivery{toAda(1), toAda(3), toAda(3)},
	})
	fmt.Println(report)
	// Output:
	// 3 events
	// CIM_DELIVERIES: 3 expected, 1 lost, 1 repeated, 0 out of order, 0 unexpected
	//   lost: cim-agent.acme.ada.onCimEvent.c1 of event 2
	//   repeated: cim-agent.acme.ada.onCimEvent.c1 of event 3
}
