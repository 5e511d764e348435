package modbus

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"hubagent/config"
)

// speed is the kernel's name of a baud rate.
func speed(baud int) (uint32, error) {
	rates := map[int]uint32{
		1200: unix.B1200, 2400: unix.B2400, 4800: unix.B4800, 9600: unix.B9600, 19200: unix.B19200,
		38400: unix.B38400, 57600: unix.B57600, 115200: unix.B115200,
	}
	rate, ok := rates[baud]
	if !ok {
		return 0, fmt.Errorf("baud rate %d is not one that serial ports have", baud)
	}
	return rate, nil
}

// ErrInUse says that another program has a serial port locked.
var ErrInUse = errors.New("another program has it: stop that one, two masters on a line destroy each other's answers")

// openPort opens a serial port raw, non-blocking so that reads and writes have deadlines, and locked against another
// agent. The lock is advisory and goes with the process; TIOCEXCL would outlive it while anyone has the line open.
func openPort(b config.Bus) (*os.File, error) {
	fd, err := unix.Open(b.Port, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open %s: %w", b.Port, err)
	}
	if err := setUp(fd, b); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("cannot use %s: %w", b.Port, err)
	}
	return os.NewFile(uintptr(fd), b.Port), nil
}

func setUp(fd int, b config.Bus) error {
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return ErrInUse
		}
		return err
	}
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return fmt.Errorf("not a serial port: %w", err)
	}
	rate, err := speed(b.Baud)
	if err != nil {
		return err
	}
	t.Iflag, t.Oflag, t.Lflag = 0, 0, 0
	t.Cflag = unix.CS8 | unix.CREAD | unix.CLOCAL | rate
	t.Ispeed, t.Ospeed = rate, rate
	if b.StopBits == 2 {
		t.Cflag |= unix.CSTOPB
	}
	switch b.Parity {
	case config.ParityEven:
		t.Cflag |= unix.PARENB
	case config.ParityOdd:
		t.Cflag |= unix.PARENB | unix.PARODD
	}
	t.Cc[unix.VMIN], t.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, t); err != nil {
		return err
	}
	return setDirection(fd, b)
}

// rs485 is struct serial_rs485 of linux/serial.h, and its ioctl and flags.
type rs485 struct {
	flags, beforeMS, afterMS uint32
	_                        [5]uint32
}

const (
	setRS485       = 0x542F // TIOCSRS485
	rs485Enabled   = 1 << 0
	rs485RTSOnSend = 1 << 1
	rs485RTSAfter  = 1 << 2
)

// setDirection has the kernel switch the transceiver by RTS where the config asks for it. A port whose driver cannot do
// that refuses: to go on would be to send into a receiver.
func setDirection(fd int, b config.Bus) error {
	if b.RS485 == config.RS485Adapter || b.RS485 == "" {
		return nil
	}
	r := rs485{flags: rs485Enabled | rs485RTSOnSend, beforeMS: milliseconds(b.RTSBefore), afterMS: milliseconds(b.RTSAfter)}
	if b.RS485 == config.RS485RTSLow {
		r.flags = rs485Enabled | rs485RTSAfter
	}
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), setRS485, uintptr(unsafe.Pointer(&r))); errno != 0 {
		return fmt.Errorf("this port's driver does not switch RS-485 direction (%w): write rs485: adapter for one that does it by itself", errno)
	}
	return nil
}

// milliseconds rounds up: a delay that is too short cuts off bits.
func milliseconds(d time.Duration) uint32 {
	return uint32((d + time.Millisecond - 1) / time.Millisecond)
}

// lineCounts are errors that a port's hardware has seen.
type lineCounts struct{ framing, parity, overrun int32 }

func (c lineCounts) less(earlier lineCounts) lineCounts {
	return lineCounts{c.framing - earlier.framing, c.parity - earlier.parity, c.overrun - earlier.overrun}
}

// errorCounts asks the driver of a port for its counts since boot (TIOCGICOUNT, struct serial_icounter_struct of
// linux/serial.h). Ports without hardware, such as pseudo-terminals, have none.
func errorCounts(port syscall.Conn) (c lineCounts, ok bool) {
	var raw struct {
		cts, dsr, rng, dcd, rx, tx, frame, overrun, parity, brk, bufOverrun int32
		_                                                                   [9]int32
	}
	control, err := port.SyscallConn()
	if err != nil {
		return c, false
	}
	err = control.Control(func(fd uintptr) {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, unix.TIOCGICOUNT, uintptr(unsafe.Pointer(&raw)))
		ok = errno == 0
	})
	return lineCounts{raw.frame, raw.parity, raw.overrun}, ok && err == nil
}
