package main

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// build is what the binary knows of how it was made.
type build struct {
	Version  string `json:"version"`  // of the module; "(devel)" where it was not built from a release
	Revision string `json:"revision"` // of the source, "" if unknown
	Modified bool   `json:"modified"` // the source had changes beside the revision
	Time     string `json:"time"`     // of the revision, RFC 3339
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Server   string `json:"nats_server"` // version of the server inside
}

func readBuild() build {
	b := build{Version: "(devel)", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	if info.Main.Version != "" {
		b.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Revision = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	for _, dep := range info.Deps {
		if dep.Path == "github.com/nats-io/nats-server/v2" {
			b.Server = dep.Version
		}
	}
	return b
}

// semantic is the version as other tools read it, "" where there is none.
func (b build) semantic() string {
	version, ok := strings.CutPrefix(b.Version, "v")
	if !ok {
		return ""
	}
	return version
}

func newVersionCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			b := readBuild()
			if a.json {
				return line(a.stdout, b)
			}
			_, err := fmt.Fprintf(a.stdout, "cimbus %s, %s, %s, NATS server %s\n", b.Version, b.Go, b.Platform, orDash(b.Server))
			return err
		},
	}
}
