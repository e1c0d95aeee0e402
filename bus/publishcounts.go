package bus

import (
	"errors"
	"sync/atomic"
)

// PublishCounts are what Publish, the publishers of NewPublisher and the control service did on this bus since it was opened. What
// services publish by themselves is not in them.
type PublishCounts struct {
	Tenants map[string]TenantPublishes // by the name the tenant is counted under
	Errors  map[string]uint64          // by reason, of which all there are are named
}

// TenantPublishes are the events of one tenant.
type TenantPublishes struct {
	Stored     uint64 // by this publish, and not before it
	Duplicates uint64 // they had been stored before
}

// publishFailure is why an event was not published, as it is counted.
type publishFailure struct {
	err    error // nil: any other
	reason string
}

// publishFailures are the reasons; an error counts as the first it is.
func publishFailures() [9]publishFailure {
	return [9]publishFailure{
		{ErrUnknownOutcome, "unknown-outcome"}, {ErrInvalidEvent, "invalid"}, {ErrTooLarge, "too-large"}, {ErrStoreFull, "store-full"},
		{ErrNoStream, "no-stream"}, {ErrUnauthorized, "unauthorized"}, {ErrUnreachable, "unreachable"}, {ErrClosed, "closed"}, {nil, "refused"},
	}
}

type publishCounters struct {
	tenants *PerTenant[tenantPublishes]
	errors  [9]atomic.Uint64 // as publishFailures
}

type tenantPublishes struct{ stored, duplicates atomic.Uint64 }

// count counts the outcome of one event.
func (c *publishCounters) count(tenant string, r Receipt, err error) {
	switch {
	case err != nil:
		for i, f := range publishFailures() {
			if f.err == nil || errors.Is(err, f.err) {
				c.errors[i].Add(1)
				return
			}
		}
	case r.Duplicate:
		c.tenants.Of(tenant).duplicates.Add(1)
	default:
		c.tenants.Of(tenant).stored.Add(1)
	}
}

// PublishCounts returns what was published through this bus so far.
func (b *Bus) PublishCounts() PublishCounts {
	all := PublishCounts{Tenants: map[string]TenantPublishes{}, Errors: map[string]uint64{}}
	for tenant, n := range b.published.tenants.All() {
		all.Tenants[tenant] = TenantPublishes{Stored: n.stored.Load(), Duplicates: n.duplicates.Load()}
	}
	for i, f := range publishFailures() {
		all.Errors[f.reason] = b.published.errors[i].Load()
	}
	return all
}
