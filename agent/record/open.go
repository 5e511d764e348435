package record

import (
	"errors"
	"log/slog"

	"hubagent/agent/contract"
	"hubagent/buffer"
)

// classOldLasting is the class of leaves of KindOld that carry a lasting one.
const classOldLasting = buffer.Class('O')

// Lasting are the classes of leaves that a full quota takes last: there are few of them, and they say what happened.
func Lasting() []buffer.Class {
	list := []buffer.Class{classOldLasting}
	for _, k := range []contract.Kind{contract.KindGenesis, contract.KindMeta, contract.KindEvent, contract.KindFault, contract.KindGap, contract.KindClock} {
		list = append(list, buffer.Class(k.Class()))
	}
	return list
}

// Open opens the journal, and repairs it where it is damaged: what is left of a log that cannot go on is carried over
// into a new epoch, see Begin and Carry.
func Open(opts buffer.Options) (*buffer.Store, error) {
	store, err := buffer.Open(opts)
	var damage *buffer.DamageError
	if !errors.As(err, &damage) {
		return store, err
	}
	log := opts.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	log.Error("journal is damaged and is being repaired", "damage", damage.What)
	r, err := buffer.Repair(opts, damage.What)
	if err != nil {
		return nil, err
	}
	log.Warn("journal is repaired; the damaged one was set aside and may be removed once the platform has everything",
		"folder", r.Aside, "why", r.Why, "log goes on", r.Continues, "leaves lost", count(r.Lost))
	return buffer.Open(opts)
}

func count(list []buffer.Range) (n int64) {
	for _, r := range list {
		n += r.End - r.First
	}
	return n
}
