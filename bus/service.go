package bus

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/micro"
	"github.com/nats-io/nuid"
)

// ServiceName is the name of the bus's NATS micro service, and of the queue group in which its instances share the requests.
const ServiceName = "cimbus"

// service is a set of endpoints that `nats service` lists, describes and counts. It speaks the protocol of nats.go's micro without
// that package's service, which counts as time and errors only what a handler does before it returns, and these answer later; and which
// answers discovery wherever a request says.
type service struct {
	nc        *nats.Conn
	identity  micro.ServiceIdentity
	started   time.Time
	endpoints []*endpoint // by name
	subs      []*nats.Subscription
	refuse    func(m *nats.Msg) // told of every request for discovery that is not answered
}

// endpoint is a subject that is served, and what became of the requests.
type endpoint struct {
	micro.EndpointInfo

	mu    sync.Mutex
	stats micro.EndpointStats
}

func newService(nc *nats.Conn, version string, refuse func(*nats.Msg)) (*service, error) {
	if !regexp.MustCompile(`^\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`).MatchString(version) {
		return nil, fmt.Errorf("version %.80q: give a semantic version, as 1.2.3", version)
	}
	return &service{
		nc: nc, started: time.Now().UTC(), refuse: refuse,
		identity: micro.ServiceIdentity{Name: ServiceName, ID: nuid.Next(), Version: version, Metadata: map[string]string{}},
	}, nil
}

// add makes an endpoint, which is served from start on.
func (s *service) add(name, subject string) *endpoint {
	e := &endpoint{EndpointInfo: micro.EndpointInfo{Name: name, Subject: subject, QueueGroup: ServiceName, Metadata: map[string]string{}}}
	e.stats = micro.EndpointStats{Name: name, Subject: subject, QueueGroup: ServiceName}
	s.endpoints = append(s.endpoints, e)
	return e
}

// start serves each endpoint by the handler that handlers makes for it, and answers discovery.
func (s *service) start(handlers map[*endpoint]nats.MsgHandler) error {
	slices.SortFunc(s.endpoints, func(x, y *endpoint) int { return cmp.Compare(x.Name, y.Name) })
	for _, e := range s.endpoints {
		if err := s.kept(s.nc.QueueSubscribe(e.Subject, ServiceName, handlers[e])); err != nil {
			return fmt.Errorf("serve %s: %w", e.Name, err)
		}
	}
	for verb, answer := range map[micro.Verb]func() any{
		micro.PingVerb: s.ping, micro.InfoVerb: s.info, micro.StatsVerb: s.statistics,
	} {
		for _, whose := range [][2]string{{}, {ServiceName}, {ServiceName, s.identity.ID}} {
			subject, err := micro.ControlSubject(verb, whose[0], whose[1])
			if err == nil {
				err = s.kept(s.nc.Subscribe(subject, s.discover(answer)))
			}
			if err != nil {
				return fmt.Errorf("answer %s: %w", verb, err)
			}
		}
	}
	return nil
}

func (s *service) kept(sub *nats.Subscription, err error) error {
	if err == nil {
		s.subs = append(s.subs, sub)
	}
	return err
}

// discover answers a request for discovery, to an inbox and nowhere else: the bus may publish where others may not.
func (s *service) discover(answer func() any) nats.MsgHandler {
	return func(m *nats.Msg) {
		body, err := json.Marshal(answer())
		if err != nil || !anyInbox(m.Reply) || s.nc.Publish(m.Reply, body) != nil {
			s.refuse(m)
		}
	}
}

func (s *service) ping() any {
	return micro.Ping{ServiceIdentity: s.identity, Type: micro.PingResponseType}
}

func (s *service) info() any {
	i := micro.Info{ServiceIdentity: s.identity, Type: micro.InfoResponseType, Description: "Requests of agents to the bus"}
	for _, e := range s.endpoints {
		i.Endpoints = append(i.Endpoints, e.EndpointInfo)
	}
	return i
}

func (s *service) statistics() any {
	all := micro.Stats{ServiceIdentity: s.identity, Type: micro.StatsResponseType, Started: s.started}
	for _, e := range s.endpoints {
		e.mu.Lock()
		stats := e.stats
		e.mu.Unlock()
		if stats.NumRequests > 0 {
			stats.AverageProcessingTime = stats.ProcessingTime / time.Duration(stats.NumRequests)
		}
		all.Endpoints = append(all.Endpoints, &stats)
	}
	return all
}

// done counts a request that came when it began, "" is that it was answered as it should be.
func (e *endpoint) done(began time.Time, problem string) {
	took := time.Since(began)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stats.NumRequests++
	e.stats.ProcessingTime += took
	if problem != "" {
		e.stats.NumErrors++
		e.stats.LastError = spanText(problem)
	}
}

// stop ends the service; requests that have come are still handed out.
func (s *service) stop() error {
	var errs []error
	for _, sub := range s.subs {
		if err := sub.Drain(); err != nil && !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrBadSubscription) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// anyInbox reports whether reply is a literal subject below an inbox prefix: the common one, or one of somebody's own that begins
// with it, as _INBOX_ops.
func anyInbox(reply string) bool { return strings.HasPrefix(reply, "_INBOX") && literal(reply) }

// openInbox reports whether reply is a literal subject below _INBOX, the prefix of every client that was not told another.
func openInbox(reply string) bool { return strings.HasPrefix(reply, "_INBOX.") && literal(reply) }

// literal reports whether a subject has several tokens, none of them empty or a wildcard.
func literal(subject string) bool {
	tokens := strings.Split(subject, ".")
	return len(tokens) > 1 && !slices.Contains(tokens, "") &&
		!strings.ContainsFunc(subject, func(r rune) bool { return r <= ' ' || r >= 0x7F || r == '*' || r == '>' })
}
