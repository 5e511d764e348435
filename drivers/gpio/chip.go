package gpio

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"golang.org/x/sys/unix"
	"periph.io/x/conn/v3/driver/driverreg"
	periph "periph.io/x/conn/v3/gpio"
	"periph.io/x/host/v3/gpioioctl"

	"hubagent/config"
	"hubagent/drivers"
)

// Open makes a bus of a GPIO chip, found by its label or name; numbers of chips change between kernels. Lines are
// claimed at their first read.
func Open(b config.Bus, _ *slog.Logger) (drivers.Bus, error) {
	return newBus(&chip{label: b.Chip, claimed: map[int]*gpioioctl.GPIOLine{}}), nil
}

// chip reads lines through the kernel's GPIO character device. periph's own Func, Chip.Close, and Read on a line that
// was not set as input are never called: they reconfigure lines, or close file descriptors of others.
type chip struct {
	label   string
	found   *gpioioctl.GPIOChip
	claimed map[int]*gpioioctl.GPIOLine // lines whose In succeeded
}

func (c *chip) level(offset int) (bool, error) {
	line := c.claimed[offset]
	if line == nil {
		var err error
		if line, err = c.claim(offset); err != nil {
			return false, err
		}
		c.claimed[offset] = line
	}
	return line.Read() == periph.High, nil
}

func (c *chip) claim(offset int) (*gpioioctl.GPIOLine, error) {
	if err := c.find(); err != nil {
		return nil, err
	}
	line := c.found.ByNumber(offset)
	if line == nil {
		return nil, fmt.Errorf("chip %s has no line %d", c.label, offset)
	}
	if err := line.In(periph.Float, periph.NoEdge); err != nil {
		return nil, fmt.Errorf("cannot claim line %d of chip %s: %w", offset, c.label, err)
	}
	return line, nil
}

func (c *chip) find() error {
	if c.found != nil {
		return nil
	}
	if err := keepFile0(func() error { _, err := driverreg.Init(); return err }); err != nil {
		return fmt.Errorf("cannot look for GPIO chips: %w", err)
	}
	var labels []string
	for _, chip := range gpioioctl.Chips {
		if chip.Label() == c.label || chip.Name() == c.label {
			c.found = chip
			return nil
		}
		labels = append(labels, chip.Label())
	}
	if len(labels) == 0 {
		return errors.New("this machine shows no GPIO chip: is /dev/gpiochip0 there, and may the agent open it?")
	}
	return fmt.Errorf("there is no GPIO chip %s; there are: %s", c.label, strings.Join(labels, ", "))
}

// keepFile0 sees to it that file descriptor 0 is open after do. Where two nodes are one chip, as gpiochip0 and gpiochip4
// are on a Raspberry Pi, periph's Init closes 0. The next line claimed would get that number, which to periph means a
// line that was not claimed: it would read as low for ever.
func keepFile0(do func() error) error {
	spare, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("cannot hold standard input: %w", err)
	}
	defer unix.Close(spare)
	err = do()
	if _, gone := unix.FcntlInt(0, unix.F_GETFD, 0); gone != nil {
		err = errors.Join(err, unix.Dup3(spare, 0, 0))
	}
	return err
}

func (c *chip) close() error {
	for _, line := range c.claimed {
		line.Close()
	}
	return nil
}
