// Splits PTX text into words, numbers and punctuation, each with its line.
#pragma once
#include <string_view>

namespace rnk::emu {

// A word may hold dots and '::' (ld.shared::cta.b32, %tid.x, .reg); a number is kept as text.
struct Token {
  enum Kind { kEnd, kWord, kNumber, kString, kPunct } kind = kEnd;
  std::string_view text;
  int line = 0;
  bool is(std::string_view s) const { return kind != kString && text == s; }
};

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) { advance(); }
  const Token& peek() const { return token_; }
  Token next() {
    Token t = token_;
    advance();
    return t;
  }
  void skip_line();  // drops the rest of the current token's line

 private:
  void advance();
  void skip_blank();
  std::string_view text_;
  size_t pos_ = 0;
  int line_ = 1;
  Token token_;
};

}  // namespace rnk::emu
