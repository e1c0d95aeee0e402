package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// ask returns nil if the operator agrees. Where nobody can be asked nothing is done; what was asked for is then not done, so it is
// a failure.
func (a *app) ask(ctx context.Context, what string) error {
	if terminal, ok := a.stdin.(io.Writer); ok && isTerminal(terminal) {
		return a.confirm(ctx, what)
	}
	return a.unasked(what)
}

func (a *app) unasked(what string) error {
	a.tell("nothing was done: add --yes to %s", what)
	return errReported
}

func (a *app) confirm(ctx context.Context, what string) error {
	if _, err := fmt.Fprintf(a.stderr, "%s? [y/N] ", what); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	answer, err := bufio.NewReader(&interruptible{ctx: ctx, in: a.stdin}).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	case "":
		if err != nil {
			return a.unasked(what) // nobody is there
		}
	}
	a.tell("nothing was done")
	return errReported
}
