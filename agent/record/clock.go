package record

import (
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"hubagent/agent/contract"
)

// Clock gives the present moment as the gateway knows it, boot id and time since boot included. It is safe for concurrent
// use. One that names no boot is taken to be right always.
type Clock func() contract.Stamp

// SystemClock follows the kernel's clock and judges whether it can be believed. It never sets it. Its methods are safe for
// concurrent use.
type SystemClock struct {
	boot string
	log  *slog.Logger

	mu     sync.Mutex
	known  timekeeping
	since  time.Time // of the state and doubt as they are
	synced bool      // the kernel's word
	asked  int64     // mono when it was asked for it
}

// ClockStatus is what the page shows of the clock.
type ClockStatus struct {
	State    string    // as in contract.Stamp
	Doubt    Doubt     // why State is unsync
	Since    time.Time // of State and Doubt as they are
	Compared bool      // Ahead is known: the platform said its time since the start
	Ahead    time.Duration
	Jumped   bool          // since the start
	JumpedBy time.Duration // the last time; forward is positive
	JumpAge  time.Duration // of the last time
}

// NewSystemClock makes a clock over the kernel's: wall time, whether it is synchronised (adjtimex), boot id and time since
// boot.
func NewSystemClock(log *slog.Logger) (*SystemClock, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("cannot read boot id: %w", err)
	}
	return &SystemClock{boot: strings.TrimSpace(string(raw)), log: log}, nil
}

// Stamp is a Clock.
func (c *SystemClock) Stamp() contract.Stamp {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.look()
	return contract.Stamp{At: l.wall, Clock: c.known.state, Boot: c.boot, Mono: l.mono}
}

// Status says how the clock stands.
func (c *SystemClock) Status() ClockStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	l := c.look()
	k := c.known
	s := ClockStatus{State: k.state, Doubt: k.doubt, Since: c.since, Compared: k.compared, Jumped: k.jumped, JumpedBy: ms(k.jumpedBy), JumpAge: ms(l.mono - k.jumpedAt)}
	if k.compared {
		s.Ahead = ms(k.ahead(l))
	}
	return s
}

// Hear takes in the platform's time, which was sent just now, in Unix milliseconds.
func (c *SystemClock) Hear(at int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, mono := readClocks()
	c.known.compared, c.known.platform = true, at-mono
	c.look()
}

// NotBefore says that the clock was once good at that time, in Unix milliseconds, so that it cannot be earlier now.
func (c *SystemClock) NotBefore(at int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known.floor = at
}

// syncAge is how long the kernel's word on whether the clock is synchronised is taken to hold. When the clock jumps it is
// asked at once: whoever sets it by hand makes it unsynchronised by that.
const syncAge = time.Second

// look reads the kernel and takes in what it says. The caller holds c.mu.
func (c *SystemClock) look() look {
	wall, mono := readClocks()
	l := look{wall: wall, mono: mono, synced: c.synced}
	if first := c.known.state == ""; first || c.known.jumps(l) != 0 || ms(mono-c.asked) >= syncAge {
		state, err := unix.Adjtimex(new(unix.Timex))
		l.synced = err == nil && state != unix.TIME_ERROR
		c.synced, c.asked = l.synced, mono
	}
	before := c.known
	c.known = before.next(l)
	if c.known.state != before.state || c.known.doubt != before.doubt {
		c.since = time.Now()
	}
	c.tell(before, l)
	return l
}

// tell logs what has changed.
func (c *SystemClock) tell(before timekeeping, l look) {
	k := c.known
	now := slog.Time("now", time.UnixMilli(l.wall).UTC())
	switch {
	case k.state == contract.ClockStep && (before.state != k.state || k.jumpedAt != before.jumpedAt):
		c.log.Warn("clock has jumped", "by", ms(k.jumpedBy), now)
	case k.doubt == DoubtPlatform && before.doubt != k.doubt:
		c.log.Warn("clock is not believed: the platform's is another", "ahead", ms(k.ahead(l)), now)
	case k.doubt == DoubtPast && before.doubt != k.doubt:
		c.log.Warn("clock is not believed: it is behind a time at which it was good", "good", time.UnixMilli(max(k.floor, leastWall)).UTC(), now)
	case k.doubt == DoubtKernel && before.doubt != k.doubt:
		c.log.Warn("clock is not synchronised: readings carry the time since boot until it is", now)
	case k.state == contract.ClockOK && before.state != k.state && before.state != "":
		c.log.Info("clock is good", now)
	}
}

func ms(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// readClocks returns wall time and time since boot of one moment. A process that the kernel holds up between the two
// would see a jump where there was none, so it looks again then.
func readClocks() (wall, mono int64) {
	for try := 0; ; try++ {
		before := sinceBoot()
		wall = time.Now().UnixMilli()
		mono = sinceBoot().Milliseconds()
		if mono-before.Milliseconds() < stepMs/10 || try == 5 {
			return wall, mono
		}
	}
}

// sinceBoot counts time asleep too: a gateway that was suspended must not place readings too early. The call never
// blocks, so Go's scheduler is not told of it: that would wake the runtime's monitor thread at every poll.
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if _, _, errno := unix.RawSyscall(unix.SYS_CLOCK_GETTIME, unix.CLOCK_BOOTTIME, uintptr(unsafe.Pointer(&ts)), 0); errno != 0 {
		return 0
	}
	return time.Duration(ts.Nano())
}

// clockSource is who says that the clock is synchronised, as clock leaves name it.
const clockSource = "adjtimex"

// timeDaemon names the program that keeps the clock, by the traces that it leaves; empty when there is none or several.
func timeDaemon() string {
	found := ""
	for path, name := range map[string]string{
		"/run/chrony/chronyd.pid":            "chrony",
		"/run/systemd/timesync/synchronized": "timesyncd",
		"/run/ntpd.pid":                      "ntpd",
	} {
		if _, err := os.Stat(path); err == nil {
			if found != "" {
				return ""
			}
			found = name
		}
	}
	return found
}
