package sim

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// terminals is the folder of pseudo-terminals.
const terminals = "/dev/pts/"

// OpenPTY makes a serial line of a pseudo-terminal in raw mode: slaves are served on master, the agent opens path.
// The slave end is kept open, too, so that an agent that closes it or restarts does not hang the line up for master.
// Master takes deadlines. closePTY closes both ends.
func OpenPTY() (master *os.File, path string, closePTY func() error, err error) {
	// Not with creack/pty: it calls Fd on the master, after which deadlines on it no longer work.
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", nil, fmt.Errorf("cannot open pseudo-terminal: %w", err)
	}
	var number int
	err = control(master, func(fd int) (err error) {
		if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
			number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		}
		return err
	})
	if err != nil {
		master.Close()
		return nil, "", nil, fmt.Errorf("cannot unlock pseudo-terminal: %w", err)
	}
	path = terminals + strconv.Itoa(number)
	slave, err := os.OpenFile(path, os.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		master.Close()
		return nil, "", nil, fmt.Errorf("cannot open pseudo-terminal: %w", err)
	}
	closePTY = func() error { return errors.Join(master.Close(), slave.Close()) }
	if err := control(slave, makeRaw); err != nil {
		closePTY()
		return nil, "", nil, fmt.Errorf("cannot set %s raw: %w", path, err)
	}
	return master, path, closePTY, nil
}

// makeRaw makes a terminal pass every byte as it is and at once; without it a master's bytes would be echoed to it.
func makeRaw(fd int) error {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = t.Cflag&^(unix.CSIZE|unix.PARENB) | unix.CS8 | unix.CREAD | unix.CLOCAL
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	return unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

// control calls do with the file's descriptor while it is sure to be open.
func control(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	if e := conn.Control(func(fd uintptr) { err = do(int(fd)) }); e != nil {
		return e
	}
	return err
}
