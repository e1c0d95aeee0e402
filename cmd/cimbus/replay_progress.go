package main

import (
	"fmt"

	"github.com/schollz/progressbar/v3"

	"github.com/cimbus/cimbus/bus"
)

// replayProgress is the bar of a replay; nil where there is no terminal to show it on.
type replayProgress struct {
	bar   *progressbar.ProgressBar
	first uint64
	last  uint64 // that the bar is as long as
}

// progress shows how far a replay is, with its rate and the time it still takes. Where stdout is a terminal and events are printed
// there it would only be in the way.
func (c *replayCommand) progress(r *bus.Replay, to replayTo) *replayProgress {
	if !isTerminal(c.app.stderr) || to.prints() && isTerminal(c.app.stdout) {
		return nil
	}
	record := r.Record()
	p := &replayProgress{first: record.Done, last: record.Last}
	length := int64(-1) // nobody knows
	if !record.Follow {
		length = int64(record.Last - min(record.Done, record.Last))
	}
	p.bar = progressbar.NewOptions64(length,
		progressbar.OptionSetWriter(c.app.stderr), progressbar.OptionClearOnFinish(), progressbar.OptionFullWidth(),
		progressbar.OptionShowIts(), progressbar.OptionSetItsString("seq"), progressbar.OptionSetPredictTime(length > 0))
	r.Progress = p.show
	return p
}

// show has the bar be as long as the way through the stream: how many events there will be nobody has counted.
func (p *replayProgress) show(r bus.ReplayRecord) {
	p.bar.Describe(fmt.Sprintf("%d events", r.Events))
	if r.Done > p.first && (r.Done < p.last || r.Follow) {
		_ = p.bar.Set64(int64(r.Done - p.first)) // a terminal that takes nothing is no reason to stop
	}
}

// end takes the bar away.
func (p *replayProgress) end() {
	if p != nil {
		_ = p.bar.Clear()
		_ = p.bar.Exit()
	}
}
