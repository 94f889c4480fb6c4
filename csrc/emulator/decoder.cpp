#include "decoder.h"

#include <algorithm>
#include <cstring>

#include "control_flow.h"

namespace rnk::emu {
namespace {

constexpr uint64_t kMaxLocalBytes = 1 << 20;
constexpr uint64_t kMaxRegisterBytes = 1 << 26;

uint32_t align_up(uint64_t v, uint64_t a) { return static_cast<uint32_t>((v + a - 1) / a * a); }

struct SpecialName {
  const char* name;
  Special id;
};
constexpr SpecialName kSpecials[] = {{"%tid.x", Special::kTidX},
                                     {"%tid.y", Special::kTidY},
                                     {"%tid.z", Special::kTidZ},
                                     {"%ntid.x", Special::kNtidX},
                                     {"%ntid.y", Special::kNtidY},
                                     {"%ntid.z", Special::kNtidZ},
                                     {"%ctaid.x", Special::kCtaidX},
                                     {"%ctaid.y", Special::kCtaidY},
                                     {"%ctaid.z", Special::kCtaidZ},
                                     {"%nctaid.x", Special::kNctaidX},
                                     {"%nctaid.y", Special::kNctaidY},
                                     {"%nctaid.z", Special::kNctaidZ},
                                     {"%laneid", Special::kLaneid},
                                     {"%warpid", Special::kWarpid},
                                     {"%nwarpid", Special::kNwarpid},
                                     {"%lanemask_eq", Special::kLanemaskEq},
                                     {"%lanemask_lt", Special::kLanemaskLt},
                                     {"%lanemask_le", Special::kLanemaskLe},
                                     {"%lanemask_gt", Special::kLanemaskGt},
                                     {"%lanemask_ge", Special::kLanemaskGe},
                                     {"%dynamic_smem_size", Special::kDynamicSmem},
                                     {"%total_smem_size", Special::kTotalSmem},
                                     {"%reserved_smem_offset_begin", Special::kReservedSmem},
                                     {"%reserved_smem_offset_end", Special::kReservedSmem},
                                     {"%reserved_smem_offset_cap", Special::kReservedSmem},
                                     {"%reserved_smem_offset_0", Special::kReservedSmem},
                                     {"%reserved_smem_offset_1", Special::kReservedSmem},
                                     {"%smid", Special::kZero},
                                     {"%nsmid", Special::kOne},
                                     {"%gridid", Special::kZero},
                                     {"%cluster_ctarank", Special::kZero},
                                     {"%cluster_nctarank", Special::kOne},
                                     {"%cluster_ctaid.x", Special::kZero},
                                     {"%cluster_ctaid.y", Special::kZero},
                                     {"%cluster_ctaid.z", Special::kZero},
                                     {"%cluster_nctaid.x", Special::kOne},
                                     {"%cluster_nctaid.y", Special::kOne},
                                     {"%cluster_nctaid.z", Special::kOne},
                                     {"%clusterid.x", Special::kCtaidX},
                                     {"%clusterid.y", Special::kCtaidY},
                                     {"%clusterid.z", Special::kCtaidZ},
                                     {"%nclusterid.x", Special::kNctaidX},
                                     {"%nclusterid.y", Special::kNctaidY},
                                     {"%nclusterid.z", Special::kNctaidZ}};

}  // namespace

KernelDecoder::KernelDecoder(std::shared_ptr<const Module> module, DeviceImage& image)
    : module_(std::move(module)), image_(image) {}

std::unique_ptr<Kernel> KernelDecoder::decode(const std::string& entry) {
  auto it = module_->function_index.find(entry);
  if (it == module_->function_index.end() || !it->second->is_entry || !it->second->has_body) {
    std::string known;
    for (const auto& f : module_->functions)
      if (f->is_entry && known.size() < 400) known += (known.empty() ? "" : ", ") + f->name;
    throw Error("argument", "no kernel '" + entry + "' in this PTX; it has: " + known);
  }
  kernel_ = std::make_unique<Kernel>();
  kernel_->name = entry;
  kernel_->module = module_;
  kernel_->entry = it->second;
  kernel_->special_offset.fill(-1);
  layout_entry_params(*it->second);
  place(*it->second);
  for (size_t i = 0; i < functions_.size(); ++i) decode_function(static_cast<int>(i));
  for (auto [instr, callee] : call_fixups_)
    kernel_->code[instr].target = functions_[callee].first_instr;
  uint32_t entry_size = static_cast<uint32_t>(kernel_->code.size());
  if (functions_.size() > 1) entry_size = functions_[1].first_instr;
  find_tail(*kernel_, entry_size);
  for (Instr& in : kernel_->code) in.ops = kernel_->operands.data() + in.first_op;
  kernel_->constants.assign(constant_rows_.size() * 32 + 8, 0);
  char* base = const_cast<char*>(kernel_->constant_base());
  for (size_t i = 0; i < constant_rows_.size(); ++i)
    std::memcpy(base + i * 256, constant_rows_[i].data(), 256);
  return std::move(kernel_);
}

void KernelDecoder::layout_entry_params(const Function& f) {
  uint64_t offset = 0;
  for (const Variable& p : f.params) {
    offset = align_up(offset, p.align);
    kernel_->param_offsets.push_back(static_cast<uint32_t>(offset));
    offset += p.bytes;
    if (offset > 32764) throw Error("parse", "kernel parameters exceed 32764 bytes");
  }
  kernel_->param_bytes = static_cast<uint32_t>(offset);
}

int KernelDecoder::place(const Function& f) {
  auto it = function_index_.find(&f);
  if (it != function_index_.end()) return it->second;
  int index = static_cast<int>(functions_.size());
  function_index_[&f] = index;
  functions_.push_back(Placed{&f, {}, {}, 0});
  place_registers(functions_.back());
  place_frame(functions_.back());
  call_path_.push_back(&f);
  for (const Statement& s : f.statements)
    for (const Arg& a : s.args) place_references(a, s.opcode.substr(0, 4) == "call");
  call_path_.pop_back();
  return index;
}

// Callees and shared variables get their places before any address is taken.
void KernelDecoder::place_references(const Arg& a, bool in_call) {
  for (const Arg& item : a.items) place_references(item, in_call);
  if (a.kind != Arg::kSymbol) return;
  if (auto it = module_->variable_index.find(a.name); it != module_->variable_index.end()) {
    const Variable& v = module_->variables[it->second];
    if (v.space == Space::kShared && !v.is_unsized) place_shared(v);
  }
  auto it = module_->function_index.find(a.name);
  if (!in_call || it == module_->function_index.end() || !it->second->has_body) return;
  if (std::find(call_path_.begin(), call_path_.end(), it->second) != call_path_.end())
    throw Error("unsupported", "recursive call of '" + a.name + "'");
  if (call_path_.size() > 64) throw Error("unsupported", "calls nested too deeply");
  place(*it->second);
}

void KernelDecoder::place_registers(Placed& p) {
  for (const Register& r : p.function->registers) {
    uint32_t bytes = r.type == Type::kPred ? 4 : std::max(2, size_of(r.type)) * 32;
    uint64_t offset = align_up(kernel_->register_bytes, r.type == Type::kPred ? 4 : 64);
    if (offset + bytes > kMaxRegisterBytes) throw Error("parse", "too many registers");
    p.register_offsets.push_back(static_cast<uint32_t>(offset));
    kernel_->register_bytes = static_cast<uint32_t>(offset + bytes);
  }
}

void KernelDecoder::place_frame(Placed& p) {
  auto add = [&](const Variable& v) {
    uint64_t offset = align_up(kernel_->local_bytes, std::max<uint32_t>(v.align, 1));
    if (offset + v.bytes > kMaxLocalBytes)
      throw Error("parse", "function '" + p.function->name + "' uses too much local memory");
    p.frame[v.name] = static_cast<uint32_t>(offset);
    kernel_->local_bytes = static_cast<uint32_t>(offset + v.bytes);
  };
  if (!p.function->is_entry) {
    for (const Variable& v : p.function->params) add(v);
    for (const Variable& v : p.function->results) add(v);
  }
  for (const Variable& v : p.function->locals) {
    if (v.space == Space::kShared)
      place_shared(v);
    else
      add(v);
  }
}

uint32_t KernelDecoder::place_shared(const Variable& v) {
  auto [it, fresh] = shared_offsets_.emplace(v.name, 0);
  if (!fresh) return it->second;
  uint32_t offset = align_up(kernel_->static_shared, v.align);
  if (offset + v.bytes > (1 << 20)) throw Error("parse", "too much shared memory");
  kernel_->static_shared = static_cast<uint32_t>(offset + v.bytes);
  return it->second = offset;
}

uint32_t KernelDecoder::frame_offset(int function, const Variable& v) const {
  return functions_[function].frame.at(v.name);
}

void KernelDecoder::decode_function(int index) {
  current_ = index;
  const Function& f = *functions_[index].function;
  functions_[index].first_instr = static_cast<uint32_t>(kernel_->code.size());
  for (const Statement& s : f.statements) decode_statement(s);
  Statement end;
  end.opcode = "ret";
  end.line = f.statements.empty() ? f.line : f.statements.back().line;
  decode_statement(end);
}

void KernelDecoder::decode_statement(const Statement& s) {
  Instr in;
  in.line = static_cast<uint32_t>(s.line);
  in.source_file = s.source_file;
  in.source_line = s.source_line;
  in.first_op = static_cast<uint32_t>(kernel_->operands.size());
  if (s.guard >= 0) {
    in.guard = static_cast<int32_t>(functions_[current_].register_offsets[s.guard]);
    in.guard_negated = s.guard_negated;
  }
  InstrBuilder b(*this, s, in);
  const OpRow* row = find_opcode(s.opcode.substr(0, s.opcode.find('.')));
  if (!row) b.fail("unknown opcode");
  in.cls = row->cls;
  row->decode(b);
  b.finish();
  in.op_count = static_cast<uint16_t>(kernel_->operands.size() - in.first_op);
  if (!in.run) b.fail("unsupported form");
  kernel_->code.push_back(in);
}

Operand KernelDecoder::constant(uint64_t bits, int width) {
  if (width < 8 && width > 0) bits &= (uint64_t{1} << (8 * width)) - 1;
  auto [it, fresh] = constant_index_.emplace(std::make_pair(bits, width), 0);
  if (fresh) {
    it->second = static_cast<uint32_t>(constant_rows_.size() * 256);
    std::vector<uint64_t> row(32);
    for (int lane = 0; lane < 32; ++lane)
      std::memcpy(reinterpret_cast<char*>(row.data()) + lane * width, &bits, width);
    constant_rows_.push_back(std::move(row));
  }
  Operand op;
  op.kind = Operand::kConstant;
  op.width = static_cast<uint8_t>(width);
  op.offset = it->second;
  return op;
}

Operand KernelDecoder::register_operand(int index) const {
  const Placed& p = functions_[current_];
  Type t = p.function->registers[index].type;
  Operand op;
  op.kind = t == Type::kPred ? Operand::kPredicate : Operand::kRegister;
  op.width = static_cast<uint8_t>(t == Type::kPred ? 4 : std::max(2, size_of(t)));
  op.offset = p.register_offsets[index];
  return op;
}

Operand KernelDecoder::special(const std::string& name, int width) {
  for (const SpecialName& s : kSpecials) {
    if (name != s.name) continue;
    if (width != 4) throw Error("unsupported", "special register " + name + " is 32 bits wide");
    int32_t& offset = kernel_->special_offset[static_cast<size_t>(s.id)];
    if (offset < 0) {
      offset = static_cast<int32_t>(align_up(kernel_->register_bytes, 64));
      kernel_->register_bytes = static_cast<uint32_t>(offset) + 128;
    }
    Operand op;
    op.kind = Operand::kRegister;
    op.width = 4;
    op.offset = static_cast<uint32_t>(offset);
    return op;
  }
  throw Error("unsupported", "special register " + name);
}

bool KernelDecoder::symbol_address(const std::string& name, uint64_t* address) {
  const Placed& p = functions_[current_];
  if (auto it = p.frame.find(name); it != p.frame.end()) {
    // .param variables of calls live in the frame too; the tag tells them from kernel parameters.
    auto local = p.function->local_index.find(name);
    bool is_param = local == p.function->local_index.end() ||
                    p.function->locals[local->second].space == Space::kParam;
    *address = it->second | (is_param ? kLocalTag << kTagShift : 0);
    return true;
  }
  if (auto it = shared_offsets_.find(name); it != shared_offsets_.end())
    return *address = kSharedBase + it->second, true;
  if (p.function->is_entry)
    for (size_t i = 0; i < p.function->params.size(); ++i)
      if (p.function->params[i].name == name) return *address = kernel_->param_offsets[i], true;
  auto it = module_->variable_index.find(name);
  if (it == module_->variable_index.end()) return false;
  const Variable& v = module_->variables[it->second];
  if (v.space == Space::kShared) {  // dynamic; all such symbols share one address
    kernel_->dynamic_shared_align = std::max(kernel_->dynamic_shared_align, v.align);
    *address = kSharedBase + align_up(kernel_->static_shared, 16);
    return true;
  }
  if (char* base = image_.find(name)) return *address = reinterpret_cast<uint64_t>(base), true;
  return false;
}

uint32_t KernelDecoder::label(const Statement& s, const std::string& name) {
  const Function& f = current();
  for (int scope = s.scope; scope >= 0; scope = f.scope_parent[scope]) {
    auto it = f.labels.find({scope, name});
    if (it != f.labels.end())
      return functions_[current_].first_instr + static_cast<uint32_t>(it->second);
  }
  throw Error("parse", "PTX line " + std::to_string(s.line) + ": no label '" + name + "'");
}

int KernelDecoder::call(const std::string& name) {
  auto it = module_->function_index.find(name);
  if (it == module_->function_index.end() || !it->second->has_body) return -1;
  int callee = place(*it->second);
  call_fixups_.emplace_back(kernel_->code.size(), callee);
  return callee;
}

}  // namespace rnk::emu
