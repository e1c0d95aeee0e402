package bus

import (
	"iter"
	"maps"
	"slices"
	"sync"
	"unicode/utf8"

	"github.com/cimbus/cimbus/subjects"
)

// OtherTenants is the name of all tenants together that are not told apart where something is counted.
const OtherTenants = "_other"

// defaultCountedTenants is how many tenants are told apart unless told otherwise.
const defaultCountedTenants = 100

// tenantNames are the tenants that are told apart in counts, the first ones that came. Whoever may publish chooses the tenants' names,
// so there may be any number of them.
type tenantNames struct {
	limit int

	mu    sync.RWMutex
	named map[string]string // the name a tenant is counted under
}

func newTenantNames(limit int) *tenantNames {
	return &tenantNames{limit: limit, named: map[string]string{}}
}

// of is the name a tenant is counted under: its own, as text that can be shown anywhere, or OtherTenants.
func (n *tenantNames) of(tenant string) string {
	n.mu.RLock()
	name, known := n.named[tenant]
	full := len(n.named) >= n.limit
	n.mu.RUnlock()
	switch {
	case known:
		return name
	case full, len(tenant) > subjects.MaxToken:
		return OtherTenants
	}
	name = tenant
	if !utf8.ValidString(tenant) || tenant == "" {
		token, err := subjects.Encode(tenant)
		if err != nil {
			return OtherTenants
		}
		name = token
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if first, known := n.named[tenant]; known {
		return first
	}
	if len(n.named) >= n.limit {
		return OtherTenants
	}
	n.named[tenant] = name
	return name
}

// PerTenant has a T for each tenant that the bus tells apart, and one for all others: see Options.CountedTenants. It is safe for
// concurrent use; what it hands out is shared.
type PerTenant[T any] struct {
	names *tenantNames

	mu sync.RWMutex
	by map[string]*T
}

// NewPerTenant makes one of the tenants of b.
func NewPerTenant[T any](b *Bus) *PerTenant[T] {
	return &PerTenant[T]{names: b.tenants, by: map[string]*T{}}
}

// Of is the T of a tenant. Who counts often keeps it.
func (p *PerTenant[T]) Of(tenant string) *T {
	name := p.names.of(tenant)
	p.mu.RLock()
	t := p.by[name]
	p.mu.RUnlock()
	if t != nil {
		return t
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if t = p.by[name]; t == nil {
		t = new(T)
		p.by[name] = t
	}
	return t
}

// All yields what there is, by the tenants' names.
func (p *PerTenant[T]) All() iter.Seq2[string, *T] {
	p.mu.RLock()
	by := maps.Clone(p.by)
	p.mu.RUnlock()
	return func(yield func(string, *T) bool) {
		for _, name := range slices.Sorted(maps.Keys(by)) {
			if !yield(name, by[name]) {
				return
			}
		}
	}
}
