package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/synadia-io/orbit.go/natscontext"
)

// contextHome is the folder in which the nats command line keeps its contexts, "" where the environment does not say.
func contextHome(env func(string) string) string {
	if dir := env("XDG_CONFIG_HOME"); dir != "" {
		return filepath.Join(dir, "nats")
	}
	if home := cmp.Or(env("HOME"), env("USERPROFILE")); home != "" {
		return filepath.Join(home, ".config", "nats")
	}
	return ""
}

// selectedContext is the name of the context that is used where none is named, "" if there is none.
func selectedContext(home string) string {
	if home == "" {
		return ""
	}
	name, err := os.ReadFile(filepath.Join(home, "context.txt"))
	if err != nil {
		return "" // as there: what cannot be read selects nothing
	}
	return strings.TrimSpace(string(name))
}

// contextFile finds a context by its name, or by the path of its file.
func contextFile(home, name string) (string, error) {
	if info, err := os.Stat(name); filepath.IsAbs(name) || strings.HasSuffix(name, ".json") && err == nil && !info.IsDir() {
		return filepath.Abs(name)
	}
	if strings.Contains(name, "..") || strings.ContainsRune(name, os.PathSeparator) {
		return "", fmt.Errorf("context %q is neither a name nor a file: give the name of a context, or the path of a .json file that is there", name)
	}
	if home == "" {
		return "", fmt.Errorf("context %q: neither $XDG_CONFIG_HOME nor $HOME says where contexts are kept: give the path of its file", name)
	}
	dir := filepath.Join(home, "context")
	file := filepath.Join(dir, name+".json")
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) {
		return file, nil
	}
	known, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil || len(known) == 0 {
		return "", fmt.Errorf("unknown context %q: there is none in %s: make it with nats context add", name, dir)
	}
	for i, each := range known {
		known[i] = strings.TrimSuffix(filepath.Base(each), ".json")
	}
	return "", fmt.Errorf("unknown context %q: in %s there are %s", name, dir, strings.Join(known, ", "))
}

// loadContext finds and reads a context. What of one cannot be honoured is an error: a connection without it would not be the one
// that was asked for.
func loadContext(home, name string) (file string, s natscontext.Settings, err error) {
	if file, err = contextFile(home, name); err != nil {
		return "", s, err
	}
	wrong := func(problem, remedy string) error {
		return fmt.Errorf("context %q (%s): %s: %s", name, file, problem, remedy)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", s, fmt.Errorf("context %q: %w", name, err)
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return "", s, wrong("not what the nats command line writes: "+err.Error(), "correct it, with nats context edit")
	}
	switch {
	case s.NSCLookup != "", strings.Contains(s.Creds, "://"):
		return "", s, wrong("the credentials are not in a file", "write them into one, and its path as creds")
	case s.UserJwt != "":
		return "", s, wrong("user_jwt is not supported", "write the token with its seed into a credentials file, and its path as creds")
	case s.JSAPIPrefix != "" && s.JSAPIPrefix != "$JS.API":
		return "", s, wrong("jetstream_api_prefix is not supported", "name the account that has the bus")
	}
	return file, s, nil
}
