// Turns a function's statements into Instr: decoder.cpp lays out registers and memory, the opcode
// tables (ops_*.cpp) choose handlers through the InstrBuilder.
#pragma once
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "device_image.h"
#include "error.h"
#include "program.h"

namespace rnk::emu {

class KernelDecoder;

// One statement being decoded: its modifiers, operands and the Instr under construction.
class InstrBuilder {
 public:
  InstrBuilder(KernelDecoder& decoder, const Statement& s, Instr& in);

  // Modifiers are words between dots; every one must be taken, a leftover is an error.
  bool take(std::string_view word);
  void flag(std::string_view word, uint32_t bit) { in.flags |= take(word) ? bit : 0u; }
  int take_any(std::initializer_list<std::string_view> words);  // index or -1
  Type take_type();                                             // the next type in order
  Type peek_type() const;
  Round take_round(Round fallback);
  Space take_space();
  bool take_scope();  // true when it is the block (a cluster is one block here)
  void take_cache_hints();
  std::string_view next_modifier();  // takes the first one left, "" at the end
  void finish();                     // fails on leftovers

  size_t arg_count() const { return s_.args.size(); }
  const Arg& arg(size_t i) const;
  void want_args(size_t low, size_t high) const;

  // Append operands; width is the bytes a lane the instruction reads or writes.
  void reg(const Arg& a, int width);           // exact width
  void any_width(const Arg& a, int at_least);  // ld/st/cvt: registers may be wider
  void pred(const Arg& a);
  void source(const Arg& a, Type t);  // register or immediate
  void none();
  void vector(const Arg& a, int width);  // {..} or a single register
  void address(const Arg& a);            // base operand (8 bytes a lane); in.imm += offset
  void sources(size_t first, std::initializer_list<Type> types);

  [[noreturn]] void fail(const std::string& what) const;
  KernelDecoder& decoder() { return decoder_; }
  const Statement& statement() const { return s_; }
  Instr& in;

 private:
  void push(Operand op);
  KernelDecoder& decoder_;
  const Statement& s_;
  std::vector<std::string_view> modifiers_;
  std::vector<bool> taken_;
};

struct OpRow {
  const char* name;
  OpClass cls;
  void (*decode)(InstrBuilder& b);  // sets in.run and operands
};
const OpRow* find_opcode(std::string_view name);

class KernelDecoder {
 public:
  KernelDecoder(std::shared_ptr<const Module> module, DeviceImage& image);
  std::unique_ptr<Kernel> decode(const std::string& entry);

  Kernel& kernel() { return *kernel_; }
  Operand constant(uint64_t bits, int width);
  Operand register_operand(int index) const;
  Operand special(const std::string& name, int width);
  bool symbol_address(const std::string& name, uint64_t* address);
  uint32_t label(const Statement& s, const std::string& name);
  int call(const std::string& name);  // index of the callee among functions_
  const Function& current() const { return *functions_[current_].function; }
  template <class T>
  T* own(T value) {
    auto p = std::make_shared<T>(std::move(value));
    kernel_->owned.push_back(p);
    return p.get();
  }
  uint32_t frame_offset(int function, const Variable& v) const;
  const Function& function(int index) const { return *functions_[index].function; }
  int current_index() const { return current_; }

 private:
  struct Placed {
    const Function* function;
    std::vector<uint32_t> register_offsets;
    std::unordered_map<std::string, uint32_t> frame;  // params, results, locals -> local offset
    uint32_t first_instr = 0;
  };
  int place(const Function& f);
  void place_references(const Arg& a, bool in_call);
  void place_registers(Placed& p);
  void place_frame(Placed& p);
  uint32_t place_shared(const Variable& v);
  void decode_function(int index);
  void decode_statement(const Statement& s);
  void layout_entry_params(const Function& f);

  std::shared_ptr<const Module> module_;
  DeviceImage& image_;
  std::unique_ptr<Kernel> kernel_;
  std::vector<Placed> functions_;
  std::unordered_map<const Function*, int> function_index_;
  std::unordered_map<std::string, uint32_t> shared_offsets_;
  std::map<std::pair<uint64_t, int>, uint32_t> constant_index_;
  std::vector<std::vector<uint64_t>> constant_rows_;
  std::vector<std::pair<size_t, int>> call_fixups_;  // instr -> callee
  std::vector<const Function*> call_path_;
  int current_ = 0;
};

}  // namespace rnk::emu
