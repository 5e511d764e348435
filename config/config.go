// Package config holds a gateway's configuration: hub.yaml as a file, and the device profiles it refers to.
//
// Parse reads a file strictly and reports every problem in it together, each with line, column and the mend. A Config
// that Parse returned without problems is complete: every default is filled in and every reference resolved.
package config

import (
	"crypto/sha256"
	"time"
)

// Config is one hub.yaml. Paths in it are absolute, or relative to the folder of the file; Parse makes them absolute.
type Config struct {
	Version int     `yaml:"version"`
	Gateway Gateway `yaml:"gateway"`
	State   string  `yaml:"state"` // folder that holds journal, keys and everything else the agent writes
	Journal Journal `yaml:"journal"`
	Uplink  Uplink  `yaml:"uplink"`
	Status  Status  `yaml:"status"`
	Buses   []Bus   `yaml:"buses"`

	Hash string `yaml:"-"` // lower-case hex SHA-256 of the file's bytes and of every profile used
}

// Gateway says who this gateway is.
type Gateway struct {
	ID   string         `yaml:"id"`   // MQTT client id and topic level: 1 to 64 of a-z 0-9 and -
	Site string         `yaml:"site"` // name for the status page; never travels
	Zone *time.Location `yaml:"zone"` // IANA time zone of the page; default Asia/Shanghai
}

// Journal says how readings are kept.
type Journal struct {
	SyncInterval time.Duration `yaml:"sync_interval"` // a reading is durable at most this long after its poll; default 2 s
	LeafInterval time.Duration `yaml:"leaf_interval"` // readings of this long become one leaf; default 60 s
	Quota        Bytes         `yaml:"quota"`         // most disk space; 0: 2 GB or 40 % of what is free at the first start
	Key          JournalKey    `yaml:"key"`

	CardEndurance Bytes `yaml:"card_endurance"` // what the maker of the card promises can be written to it; 0: not known
}

// JournalKey says where the journal's key comes from: one of the three, or with none of them the file keys/journal.key in
// the state folder. It is 32 bytes, or 64 hexadecimal digits.
type JournalKey struct {
	File       string   `yaml:"file"`       // made at the first start
	Credential string   `yaml:"credential"` // name of a systemd credential, a file in $CREDENTIALS_DIRECTORY
	Command    []string `yaml:"command"`    // program and arguments; it prints the key
}

// Uplink says where leaves go. Without brokers the agent only journals and shows its page.
type Uplink struct {
	Brokers            []string      `yaml:"brokers"`             // mqtt://host:port, mqtts://host:port; tried in order
	Origin             string        `yaml:"origin"`              // first part of a checkpoint's origin line, e.g. hub.example
	CheckpointInterval time.Duration `yaml:"checkpoint_interval"` // default 15 min
	KeepAlive          time.Duration `yaml:"keep_alive"`          // MQTT keep alive; default 20 s
	ReconnectMax       time.Duration `yaml:"reconnect_max"`       // ceiling of the jittered wait between attempts; default 600 s
	AllowPlaintext     bool          `yaml:"allow_plaintext"`     // mqtt:// to a broker that is not on this machine
}

// Status says where the local page is served.
type Status struct {
	Listen string `yaml:"listen"` // host:port; default 127.0.0.1:8080; "off" turns the page off, and Parse makes it empty
}

// BusKind is a way to reach devices. The table in agent/drivers.go has one OpenFunc for each.
type BusKind string

// The kinds of bus.
const (
	ModbusTCP    BusKind = "modbus-tcp"     // Modbus TCP server or serial-to-Ethernet converter at Address
	ModbusRTU    BusKind = "modbus-rtu"     // RS-485 line at Port
	ModbusRTUTCP BusKind = "modbus-rtu-tcp" // RTU frames over a TCP connection: serial-to-Ethernet converter in transparent mode at Address
	GPIO         BusKind = "gpio"           // lines of the GPIO chip labelled Chip
	GPIOSim      BusKind = "gpio-sim"       // the same with one file a line in folder Dir: "0" or "1"; for demo, tests, training
)

// Parity is a serial line's parity: none, even or odd.
type Parity string

// The parities.
const (
	ParityNone Parity = "none"
	ParityEven Parity = "even"
	ParityOdd  Parity = "odd"
)

// RS485 says who switches a two-wire transceiver to sending and back.
type RS485 string

// The ways of switching.
const (
	RS485Adapter RS485 = "adapter"  // the adapter or UART does it by itself: nearly all of them
	RS485RTSHigh RS485 = "rts-high" // the kernel does, by the RTS line, high while sending
	RS485RTSLow  RS485 = "rts-low"  // the same, low while sending
)

// Bus is one line with its devices, polled one at a time.
type Bus struct {
	Name      string        `yaml:"name"`
	Kind      BusKind       `yaml:"kind"`
	Address   string        `yaml:"address"`    // modbus-tcp, modbus-rtu-tcp: host:port, port 502 when left out
	Port      string        `yaml:"port"`       // modbus-rtu: device file, best a stable name under /dev/serial/by-id
	Baud      int           `yaml:"baud"`       // modbus-rtu: bits a second; default 9600. Behind a converter: what its line is set to, for the bus-time budget; 0 there: not known
	Parity    Parity        `yaml:"parity"`     // modbus-rtu; default none
	StopBits  int           `yaml:"stop_bits"`  // modbus-rtu: 1 or 2; default 1
	RS485     RS485         `yaml:"rs485"`      // modbus-rtu: who switches the transceiver; default adapter
	RTSBefore time.Duration `yaml:"rts_before"` // rs485 by the kernel: from switching to the first bit
	RTSAfter  time.Duration `yaml:"rts_after"`  // rs485 by the kernel: from the last bit to switching back
	Chip      string        `yaml:"chip"`       // gpio: the chip's label as gpioinfo prints it
	Dir       string        `yaml:"dir"`        // gpio-sim: folder of the line files
	Timeout   time.Duration `yaml:"timeout"`    // longest wait for an answer, at least 10 ms; 0, the default: as long as each device's profile says
	Devices   []Device      `yaml:"devices"`
}

// Device is one device on a bus.
type Device struct {
	Name     string        `yaml:"name"`      // unique in the gateway: 1 to 64 of a-z 0-9 and -; travels
	Label    string        `yaml:"label"`     // name for the status page; never travels
	Profile  string        `yaml:"profile"`   // a profile's id
	Unit     int           `yaml:"unit"`      // Modbus unit id, 1 to 247
	Line     int           `yaml:"line"`      // gpio: offset of the line on its chip
	LineName string        `yaml:"line_name"` // gpio: name of the line, instead of Line
	Writes   []string      `yaml:"writes"`    // names of the profile's writes that are enabled for this device; none by default
	Interval time.Duration `yaml:"interval"`  // time between polls; default the profile's

	Model *Profile `yaml:"-"` // the profile named by Profile, set by Parse
}

// DeviceKind is what a device is for. It decides how the page groups and names it.
type DeviceKind string

// The kinds of device.
const (
	Bin     DeviceKind = "bin"     // smart bin
	Meter   DeviceKind = "meter"   // energy meter
	Camera  DeviceKind = "camera"  // camera that watches for thrown objects
	Contact DeviceKind = "contact" // facility contact: lift, fire panel, pump
)

// Profile describes one device model: facts from its manual, none of them specific to a site.
type Profile struct {
	ID            string        `yaml:"id"`
	Kind          DeviceKind    `yaml:"kind"`
	Model         string        `yaml:"model"`          // maker and model
	Manual        string        `yaml:"manual"`         // document the facts come from, with its number
	Interval      time.Duration `yaml:"interval"`       // default time between polls
	LeastInterval time.Duration `yaml:"least_interval"` // polled faster than this it fails; default 100 ms
	Delivered     Delivered     `yaml:"delivered"`
	Identity      []Identity    `yaml:"identity"` // all must hold
	Modbus        ModbusLimits  `yaml:"modbus"`
	Points        []Point       `yaml:"points"`
	Writes        []Write       `yaml:"writes"`

	sum [sha256.Size]byte // SHA-256 of the profile's file
}

// ModbusLimits says what a model accepts on its line.
type ModbusLimits struct {
	MaxRegisters    int           `yaml:"max_registers"`     // registers a request, 1 to 125; default 60
	MaxBits         int           `yaml:"max_bits"`          // coils or discrete inputs a request, 1 to 2000; default 64
	EvenOnly        bool          `yaml:"even_only"`         // start and count must be even, or the device answers an exception
	MaxHole         int           `yaml:"max_hole"`          // unused registers that may be read along between two points; default 0
	OneValue        bool          `yaml:"one_value"`         // a request may ask for one point only
	Blocks          []Block       `yaml:"blocks"`            // points inside a block are read by reading that block
	ResponseTimeout time.Duration `yaml:"response_timeout"`  // longest wait for an answer; default 500 ms
	LeastTimeout    time.Duration `yaml:"least_timeout"`     // the wait is never shortened below this, however fast the device was so far; default 200 ms
	InterFrameDelay time.Duration `yaml:"inter_frame_delay"` // silence before each request beyond the 3.5 characters
	Turnaround      time.Duration `yaml:"turnaround"`        // extra silence when the unit id changes
}

// Function is the table a point is read from, by the name Modbus gives it.
type Function string

// The tables of a Modbus device.
const (
	Coil            Function = "coil"             // function code 1
	DiscreteInput   Function = "discrete_input"   // function code 2
	HoldingRegister Function = "holding_register" // function code 3
	InputRegister   Function = "input_register"   // function code 4
	Line            Function = "line"             // the GPIO line itself
)

// Type is how a point is laid out in its registers.
type Type string

// The types of a point.
const (
	Bool Type = "bool"
	U16  Type = "u16"
	S16  Type = "s16"
	U32  Type = "u32"
	S32  Type = "s32"
	U64  Type = "u64"
	S64  Type = "s64"
	F32  Type = "f32"
	F64  Type = "f64"

	BCD16 Type = "bcd16" // four decimal digits, four bits each
	BCD32 Type = "bcd32"
	BCD64 Type = "bcd64"

	ASCII  Type = "ascii"  // text, two characters a register, up to the first NUL
	Pulses Type = "pulses" // line: how often it became active
)

// Registers is the number of 16-bit registers a value of the type takes; 0 for Bool and Pulses, and for ASCII, whose
// point says how many.
func (t Type) Registers() int {
	switch t {
	case U16, S16, BCD16:
		return 1
	case U32, S32, F32, BCD32:
		return 2
	case U64, S64, F64, BCD64:
		return 4
	}
	return 0
}

// Registers is the number of 16-bit registers that the point takes; 0 for a bit of its own address, or a line.
func (p Point) Registers() int {
	switch {
	case p.Type == ASCII:
		return p.Length
	case p.Type == Bool && p.Function.isRegister():
		return 1
	}
	return p.Type.Registers()
}

func (f Function) isRegister() bool { return f == HoldingRegister || f == InputRegister }

// Order is the order of bytes of a value over its registers, written as for a 32-bit value whose most significant
// byte is A.
type Order string

// The orders seen in devices.
const (
	ABCD Order = "abcd" // high word first: the usual one and the default
	CDAB Order = "cdab" // low word first
	BADC Order = "badc" // high word first, bytes swapped
	DCBA Order = "dcba" // low word first, bytes swapped
)

// Point is one measured value of a model.
type Point struct {
	Name        string        `yaml:"name"` // 1 to 32 of a-z 0-9 and _; travels
	Title       Text          `yaml:"title"`
	Function    Function      `yaml:"function"`
	Address     int           `yaml:"address"` // zero-based, as sent in the PDU
	Type        Type          `yaml:"type"`
	Length      int           `yaml:"length"`       // ascii: registers
	Order       Order         `yaml:"order"`        // of a whole number or float; ascii knows abcd and badc
	Bits        Bits          `yaml:"bits"`         // the bits of a u16 or u32 that are the value; a bool takes one bit of a u16
	Scale       Decimal       `yaml:"scale"`        // value = raw x scale + offset; default 1
	Offset      Decimal       `yaml:"offset"`       // default 0
	ScalePower  string        `yaml:"scale_power"`  // the s16 point n of the device, and the value is multiplied by 10^n (SunSpec's sunssf)
	ScaleFactor string        `yaml:"scale_factor"` // the point of the device whose value this one is multiplied by, e.g. a current transformer's ratio
	Unit        string        `yaml:"unit"`         // UCUM: V, A, W, kW.h, Hz, kg, %, 1
	Missing     []int64       `yaml:"missing"`      // raw values that mean "no value", as unsigned numbers of the type's width
	Codes       []Code        `yaml:"codes"`        // what single values mean; any other is suspect
	Counter     bool          `yaml:"counter"`      // it only counts up, but for resets
	Modulus     int64         `yaml:"modulus"`      // counter: after the raw value Modulus-1 comes 0; 0: the type's own width, or not known
	Interval    time.Duration `yaml:"interval"`     // time between its polls where it differs from the device's: a multiple of that; 0: the device's
	Invert      bool          `yaml:"invert"`       // bool, pulses: the contact is active when the line or bit is 0
	Debounce    time.Duration `yaml:"debounce"`     // line: a level must hold this long to count
	Hold        time.Duration `yaml:"hold"`         // line, bool: once active it stays so for at least this long, so that no poll misses it
	Event       bool          `yaml:"event"`        // bool: a change is an event, sent at once
	Headline    bool          `yaml:"headline"`     // shown for the device in the page's list
}

// Bits is a field of adjacent bits, counted from 0, the least significant. The zero Bits is the whole value.
type Bits struct {
	Low   int
	Width int // 0: not given
}

// Code is one value of a point that has names instead of amounts.
type Code struct {
	Value int64 `yaml:"value"`
	Title Text  `yaml:"title"`
}

// Write is something that may be written to a device: nothing else ever is, and this only where the device's entry in
// hub.yaml names it.
type Write struct {
	Name     string   `yaml:"name"` // 1 to 32 of a-z 0-9 and _
	Title    Text     `yaml:"title"`
	Function Function `yaml:"function"` // coil (function code 5), holding_register (6, or 16 for two registers) or line
	Address  int      `yaml:"address"`
	Type     Type     `yaml:"type"`    // bool for coil and line; u16, s16, u32 or s32
	Order    Order    `yaml:"order"`   // of two registers
	Allowed  []int64  `yaml:"allowed"` // the raw values that may be written; a bool takes 0 and 1
}

// Identity is a sign by which scan recognises a model: the point's value lies from Least to Most.
type Identity struct {
	Point string  `yaml:"point"`
	Least Decimal `yaml:"least"`
	Most  Decimal `yaml:"most"`
}

// Delivered is how the maker delivers a model's serial port: what scan tries first.
type Delivered struct {
	Baud     int    `yaml:"baud"`
	Parity   Parity `yaml:"parity"`
	StopBits int    `yaml:"stop_bits"`
	Unit     int    `yaml:"unit"` // 0: written on the device
}

// Block is a range that a model answers only in whole.
type Block struct {
	Function Function `yaml:"function"`
	Address  int      `yaml:"address"`
	Count    int      `yaml:"count"` // registers or bits
}

// Text is a name in the page's languages.
type Text struct {
	ZH string `yaml:"zh" json:"zh"`
	EN string `yaml:"en" json:"en"`
}

// Decimal is a decimal number, kept as Mantissa x 10^Exponent so that a raw 6156 with scale 0.01 becomes exactly 61.56
// and not the nearest product of two binary fractions.
type Decimal struct {
	Mantissa int64
	Exponent int
}
