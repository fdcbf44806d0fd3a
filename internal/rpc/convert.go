package rpc

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"syntropy/hlc"
	"syntropy/internal/rpc/peerpb"
	"syntropy/internal/topology"
)

// Conversions between the messages of formation and their wire form. Settings
// and records travel as the JSON that is stored, so there is one encoding of
// each and both are checked by the same code.

func identityTo(id topology.Identity) *peerpb.Identity {
	return &peerpb.Identity{Incarnation: id.Incarnation, Addr: id.Addr, Zone: id.Zone}
}

func identityFrom(id *peerpb.Identity) topology.Identity {
	return topology.Identity{Incarnation: id.GetIncarnation(), Addr: id.GetAddr(), Zone: id.GetZone()}
}

func meetRequestTo(r topology.MeetRequest) (*peerpb.MeetRequest, error) {
	settings, err := json.Marshal(r.Settings)
	if err != nil {
		return nil, err
	}
	m := &peerpb.MeetRequest{Me: identityTo(r.Me), Expect: uint32(r.Expect), SettingsJson: settings, Frozen: r.Frozen}
	for _, id := range r.View {
		m.View = append(m.View, identityTo(id))
	}
	return m, nil
}

func meetRequestFrom(m *peerpb.MeetRequest) (topology.MeetRequest, error) {
	r := topology.MeetRequest{Me: identityFrom(m.GetMe()), Expect: int(m.GetExpect()), Frozen: m.GetFrozen()}
	if err := json.Unmarshal(m.GetSettingsJson(), &r.Settings); err != nil {
		return r, fmt.Errorf("unreadable settings of %s: %w", r.Me.Addr, err)
	}
	for _, id := range m.GetView() {
		r.View = append(r.View, identityFrom(id))
	}
	return r, nil
}

func meetReplyTo(r topology.MeetReply) (*peerpb.MeetReply, error) {
	mine, err := meetRequestTo(r.Mine)
	if err != nil {
		return nil, err
	}
	m := &peerpb.MeetReply{Mine: mine, Refusal: r.Refusal}
	if r.Formed == nil {
		return m, nil
	}
	m.Formed = &peerpb.Formed{ClusterId: r.Formed.ClusterID}
	for _, member := range r.Formed.Members {
		m.Formed.Members = append(m.Formed.Members, &peerpb.Member{Id: uint32(member.ID), Addr: member.Addr, Founder: member.Founder, Zone: member.Zone})
	}
	if r.Formed.Table != nil {
		m.Formed.TableJson = r.Formed.Table.Encode()
	}
	if r.Formed.Record != nil {
		m.Formed.RecordJson, err = json.Marshal(r.Formed.Record)
	}
	return m, err
}

func meetReplyFrom(m *peerpb.MeetReply) (topology.MeetReply, error) {
	mine, err := meetRequestFrom(m.GetMine())
	if err != nil {
		return topology.MeetReply{}, err
	}
	r := topology.MeetReply{Mine: mine, Refusal: m.GetRefusal()}
	if m.Formed == nil {
		return r, nil
	}
	r.Formed = &topology.Formed{ClusterID: m.Formed.GetClusterId()}
	for _, member := range m.Formed.Members {
		if member.Id == 0 || member.Id > math.MaxUint16 {
			return r, errors.New("a member's node id is out of range")
		}
		r.Formed.Members = append(r.Formed.Members, topology.Member{ID: hlc.NodeID(member.Id), Addr: member.Addr, Founder: member.Founder, Zone: member.Zone})
	}
	if len(m.Formed.TableJson) > 0 {
		if r.Formed.Table, err = topology.ParseTable(m.Formed.TableJson); err != nil {
			return r, err
		}
	}
	if len(m.Formed.RecordJson) > 0 {
		r.Formed.Record, err = topology.ParseRecord(m.Formed.RecordJson)
	}
	return r, err
}

func adoptRequestTo(r topology.AdoptRequest) (*peerpb.AdoptRequest, error) {
	record, err := json.Marshal(r.Record)
	return &peerpb.AdoptRequest{From: identityTo(r.From), RecordJson: record}, err
}

func adoptRequestFrom(m *peerpb.AdoptRequest) (topology.AdoptRequest, error) {
	record, err := topology.ParseRecord(m.GetRecordJson())
	return topology.AdoptRequest{From: identityFrom(m.GetFrom()), Record: record}, err
}

func enrollRequestTo(r topology.EnrollRequest) *peerpb.EnrollRequest {
	return &peerpb.EnrollRequest{ClusterId: r.ClusterID, Me: identityTo(r.Me)}
}

func enrollRequestFrom(m *peerpb.EnrollRequest) topology.EnrollRequest {
	return topology.EnrollRequest{ClusterID: m.GetClusterId(), Me: identityFrom(m.GetMe())}
}

func enrollReplyTo(r topology.EnrollReply) (*peerpb.EnrollReply, error) {
	m := &peerpb.EnrollReply{Refusal: r.Refusal}
	if r.Table != nil {
		m.TableJson = r.Table.Encode()
	}
	if r.Record == nil {
		return m, nil
	}
	var err error
	m.RecordJson, err = json.Marshal(r.Record)
	return m, err
}

func enrollReplyFrom(m *peerpb.EnrollReply) (r topology.EnrollReply, err error) {
	r.Refusal = m.GetRefusal()
	if r.Refusal != "" {
		return r, nil
	}
	if r.Record, err = topology.ParseRecord(m.GetRecordJson()); err != nil {
		return r, err
	}
	r.Table, err = topology.ParseTable(m.GetTableJson())
	return r, err
}
