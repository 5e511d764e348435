package record

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"hubagent/agent/contract"
)

// Clock gives the present moment as the gateway knows it. It is safe for concurrent use.
type Clock func() contract.Stamp

// SystemClock reads the kernel: wall time, whether it is synchronised (adjtimex), boot id and time since boot.
func SystemClock() (Clock, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("cannot read boot id: %w", err)
	}
	boot := strings.TrimSpace(string(raw))
	var mu sync.Mutex
	var asked time.Time
	var unsynced bool
	return func() contract.Stamp {
		now := time.Now()
		s := contract.Stamp{At: now.UnixMilli(), Clock: contract.ClockOK}
		mu.Lock()
		defer mu.Unlock()
		if asked.IsZero() || now.Sub(asked) >= syncAge {
			state, err := unix.Adjtimex(new(unix.Timex))
			asked, unsynced = now, err != nil || state == unix.TIME_ERROR
		}
		if unsynced {
			s.Clock, s.Boot, s.Mono = contract.ClockUnsync, boot, sinceBoot().Milliseconds()
		}
		return s
	}, nil
}

// syncAge is how long the kernel's word on whether the clock is synchronised is taken to hold.
const syncAge = time.Second

// sinceBoot counts time asleep too: a gateway that was suspended must not place readings too early. The call never
// blocks, so Go's scheduler is not told of it: that would wake the runtime's monitor thread at every poll.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		return 0
	}
	return time.Duration(ts.Nano())
}

// stepMs is how far wall clock and monotonic clock may drift apart within a leaf before it counts as a step.
const stepMs = 1000

// continues says whether times of stamp b can be repaired by the same offset as those of a.
func continues(a, b contract.Stamp) bool {
	if a.Clock != b.Clock || a.Boot != b.Boot {
		return false
	}
	step := (b.At - b.Mono) - (a.At - a.Mono)
	return a.Clock == contract.ClockOK || -stepMs < step && step < stepMs
}
