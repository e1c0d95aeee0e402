package engineio

import (
	"fmt"
	"net/http"
)

// failure is what the protocol's servers answer a bad request with; clients show it.
type failure struct {
	code    int
	message string
}

// fail answers with one of the failures.
func fail(w http.ResponseWriter, status int, why func() failure) {
	f := why()
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// An error here is a client that is gone.
	_, _ = fmt.Fprintf(w, `{"code":%d,"message":%q}`, f.code, f.message)
}

func unknownTransport() failure   { return failure{0, "Transport unknown"} }
func unknownSession() failure     { return failure{1, "Session ID unknown"} }
func badMethod() failure          { return failure{2, "Bad handshake method"} }
func badRequest() failure         { return failure{3, "Bad request"} }
func forbidden() failure          { return failure{4, "Forbidden"} }
func unsupportedVersion() failure { return failure{5, "Unsupported protocol version"} }
