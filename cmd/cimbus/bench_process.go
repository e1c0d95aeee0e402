package main

import (
	"bytes"
	"os"
	"strconv"
	"time"
)

// clockTick is the unit in which Linux tells a process's CPU time, on every platform Go runs on.
const clockTick = 10 * time.Millisecond

// processCPU is the CPU time this process has used, 0 where the system does not tell. Beside other load it says more than the clock.
func processCPU() time.Duration {
	b, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return 0
	}
	// The name, in parentheses, may hold anything; behind it come numbers, of which these are user and system time.
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	return time.Duration(atoi(fields[11])+atoi(fields[12])) * clockTick
}

// residentMemory is what this process has in memory, in bytes; 0 where the system does not tell.
func residentMemory() int64 {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := bytes.Fields(b)
	if len(fields) < 2 {
		return 0
	}
	return atoi(fields[1]) * int64(os.Getpagesize())
}

// loadAverage is how many processes ran or waited to, in the last minute; 0 where the system does not tell.
func loadAverage() float64 {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0
	}
	first, _, _ := bytes.Cut(b, []byte(" "))
	n, err := strconv.ParseFloat(string(first), 64)
	if err != nil {
		return 0
	}
	return n
}

func atoi(b []byte) int64 {
	n, err := strconv.ParseInt(string(b), 10, 64)
	if err != nil {
		return 0
	}
	return n
}
