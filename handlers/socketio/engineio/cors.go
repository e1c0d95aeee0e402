package engineio

import (
	"net/http"
	"net/url"
	"path"
	"strings"
)

// cors checks the origin and answers a preflight; it returns whether the request is to be served. Credentials are allowed, so the origin
// is named, never "*".
func (srv *Server) cors(w http.ResponseWriter, r *http.Request) bool {
	origin := r.Header.Get("Origin")
	h := w.Header()
	if origin != "" {
		h.Add("Vary", "Origin")
		if !srv.allowed(origin, r) {
			srv.refused()
			srv.options.Logger.Debug("an origin is not allowed", "origin", origin)
			fail(w, http.StatusForbidden, forbidden)
			return false
		}
		h.Set("Access-Control-Allow-Origin", origin)
		h.Set("Access-Control-Allow-Credentials", "true")
	}
	if r.Method != http.MethodOptions {
		return true
	}
	if origin != "" {
		h.Set("Access-Control-Allow-Methods", "GET, POST")
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			h.Set("Access-Control-Allow-Headers", asked)
		}
		h.Set("Access-Control-Max-Age", "600")
	}
	w.WriteHeader(http.StatusNoContent)
	return false
}

func (srv *Server) allowed(origin string, r *http.Request) bool {
	for _, pattern := range srv.options.Origins {
		if pattern == "*" {
			return true
		}
		if ok, err := path.Match(strings.ToLower(pattern), strings.ToLower(origin)); ok && err == nil {
			return true
		}
	}
	u, err := url.Parse(origin)
	return err == nil && u.Host != "" && strings.EqualFold(u.Host, r.Host)
}
