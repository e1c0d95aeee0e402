package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// The exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// app is what the commands share: the process's surroundings and the global flags.
type app struct {
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	environ []string

	server    string // --server
	context   string // --context
	noContext bool   // --no-context
	creds     string // --creds
	json      bool   // --json

	running bool // a command's own work began; cobra has no type for the mistakes it finds before
}

// run is the whole program but for the signals, and returns its exit code. ctx ends the command as a signal would.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, environ []string) int {
	a := &app{stdin: stdin, stdout: stdout, stderr: stderr, environ: environ}
	root := newRootCommand(a)
	root.SetArgs(append([]string{}, args...)) // nil would be the process's own
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteContextC(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.Is(err, errReported):
		return exitFailed
	case !a.running, errors.As(err, &usage):
		a.tell("%s: %v\nrun '%s --help' for what it takes", cmd.CommandPath(), err, cmd.CommandPath())
		return exitUsage
	}
	a.tell("%s: %v", cmd.CommandPath(), err)
	return exitFailed
}

// usageError is a mistake on the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

func usagef(format string, args ...any) error { return &usageError{fmt.Errorf(format, args...)} }

// errReported ends a command that has told what went wrong already.
var errReported = errors.New("reported")

func newRootCommand(a *app) *cobra.Command {
	root := noun("cimbus", "A NATS event bus for contact centres",
		newServeCommand(a),
		newDemoCommand(a),
		newPublishCommand(a),
		newAgentCommand(a),
		newConversationCommand(a),
		newTailCommand(a),
		newFindCommand(a),
		newHistoryCommand(a),
		newTraceCommand(a),
		newReplayCommand(a),
		newDLQCommand(a),
		newExportCommand(a),
		newImportCommand(a),
		newEraseCommand(a),
		newHandlerCommand(a),
		newStreamsCommand(a),
		newBenchCommand(a),
		newDoctorCommand(a),
		newConfigCommand(a),
		newVersionCommand(a),
	)
	root.SilenceUsage, root.SilenceErrors = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	flags := root.PersistentFlags()
	flags.StringVar(&a.server, "server", "", "NATS `URL` of the bus (default $NATS_URL, else the context's, else "+defaultServer+")")
	flags.StringVar(&a.context, "context", "", "NATS context by `name`, as the nats command keeps them, or the path of its file (default $NATS_CONTEXT, else the selected one)")
	flags.BoolVar(&a.noContext, "no-context", false, "use no NATS context, not even the selected one")
	flags.StringVar(&a.creds, "creds", "", "NATS credentials `file` (default $NATS_CREDS)")
	flags.BoolVar(&a.json, "json", false, "one JSON object a line instead of tables")
	root.SetHelpCommand(newHelpCommand())
	root.SetFlagErrorFunc(badFlag)
	root.SetUsageTemplate(strings.Replace(root.UsageTemplate(), "{{if .Runnable}}", "{{if and .Runnable (not .DisableFlagParsing)}}", 1))
	a.watchRun(root)
	return root
}

// noun is a command that only holds others.
func noun(name, short string, verbs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: name + " <command>", Short: short, Args: cobra.ArbitraryArgs,
		// Its own flags are looked at here: otherwise the flags behind a misspelled command are complained of instead of it.
		DisableFlagParsing:         true,
		SuggestionsMinimumDistance: 2,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		for _, arg := range args {
			if arg == "--help" || arg == "-h" {
				return cmd.Help()
			}
		}
		for _, arg := range args {
			if !strings.HasPrefix(arg, "-") {
				return unknownCommand(cmd, arg)
			}
		}
		if len(args) > 0 {
			return usagef("%s stands before a command, and there is none; name one of %s", args[0], commandNames(cmd))
		}
		return usagef("name a command, one of %s", commandNames(cmd))
	}
	cmd.AddCommand(verbs...)
	return cmd
}

func unknownCommand(cmd *cobra.Command, name string) error {
	if near := cmd.SuggestionsFor(name); len(near) > 0 {
		return usagef("unknown command %q; did you mean %s?", name, strings.Join(near, " or "))
	}
	return usagef("unknown command %q; there are %s", name, commandNames(cmd))
}

func commandNames(cmd *cobra.Command) string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return strings.Join(names, ", ")
}

func newHelpCommand() *cobra.Command {
	return &cobra.Command{
		Use: "help [command]", Short: "Help about a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			found, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usagef("no help about %q", strings.Join(args, " "))
			}
			return found.Help()
		},
	}
}

// watchRun has every command note that its own work began.
func (a *app) watchRun(cmd *cobra.Command) {
	if run := cmd.RunE; run != nil {
		cmd.RunE = func(cmd *cobra.Command, args []string) error {
			a.running = true
			return run(cmd, args)
		}
	}
	for _, c := range cmd.Commands() {
		a.watchRun(c)
	}
}

// unlessEnded is err, but nil where a command that goes on until it is ended was ended.
func unlessEnded(ctx context.Context, err error) error {
	select {
	case <-ctx.Done():
		return nil
	default:
		return err
	}
}

// noArgs is for commands that take flags only.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("unexpected argument %q: only flags are taken", args[0])
	}
	return nil
}

// badFlag puts a value that does not fit its flag in plain words.
func badFlag(_ *cobra.Command, err error) error {
	var invalid *pflag.InvalidValueError
	if !errors.As(err, &invalid) {
		return err
	}
	valid := map[string]string{"int": "a whole number", "uint64": "a whole number", "bool": "true or false"}[invalid.GetFlag().Value.Type()]
	return usagef("--%s %q: give %s", invalid.GetFlag().Name, invalid.GetValue(), valid)
}

// tell writes a line to stderr. Nothing could be done, or told, if that fails.
func (a *app) tell(format string, args ...any) {
	_, _ = fmt.Fprintf(a.stderr, format+"\n", args...)
}

// env is the value of an environment variable, "" if it is not set.
func (a *app) env(name string) string {
	value := ""
	for _, entry := range a.environ {
		if v, ok := strings.CutPrefix(entry, name+"="); ok {
			value = v
		}
	}
	return value
}

// log is for what a command has to tell beside its answer.
func (a *app) log(level hclog.Level) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Name: "cimbus", Level: level, Output: a.stderr})
}
