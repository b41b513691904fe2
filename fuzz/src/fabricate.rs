//! Values of any type that serde can read, made from bytes: each variant, number and length is a choice of the source.
//!
//! It follows the types by itself: what is added to a message is fabricated without a line here.

use serde::de::value::{Error, U32Deserializer};
use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, SeqAccess, VariantAccess, Visitor,
};
use serde::{Deserialize, forward_to_deserialize_any};

use crate::source::Source;

/// Longest list, text or run of bytes.
const COUNT_MAX: usize = 40;

/// A value; none when the type refuses what was chosen (a name with a slash).
pub(crate) fn fabricate<T: for<'de> Deserialize<'de>>(source: &mut Source<'_>) -> Option<T> {
    T::deserialize(Fabricator(source)).ok()
}

struct Fabricator<'a, 'b>(&'b mut Source<'a>);

impl Fabricator<'_, '_> {
    /// Small, close to a border, or anything.
    fn number(&mut self) -> u64 {
        match self.0.byte() {
            small @ 0..=199 => u64::from(small),
            border @ 200..=231 => (1u64 << (border - 200) << (border - 200)).wrapping_sub(1),
            232..=239 => u64::MAX - u64::from(self.0.byte()),
            _ => self.0.long(),
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let count = self.0.below(COUNT_MAX);
        self.0.take(count).to_vec()
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty,)*) => {$(
        fn $method<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
            let bytes = self.number().to_le_bytes();
            let mut least = [0; size_of::<$type>()];
            least.copy_from_slice(&bytes[..size_of::<$type>()]);
            visitor.$visit(<$type>::from_le_bytes(least))
        }
    )*};
}

impl<'de> Deserializer<'de> for Fabricator<'_, '_> {
    type Error = Error;

    numbers! {
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32,
        deserialize_u64 visit_u64 u64, deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16,
        deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64,
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(serde::de::Error::custom("a type that asks for anything cannot be fabricated"))
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_bool(self.0.byte() & 1 == 1)
    }

    fn deserialize_str<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_string(String::from_utf8_lossy(&self.bytes()).into_owned())
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_bytes<V: Visitor<'de>>(mut self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_byte_buf(self.bytes())
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.byte() & 1 == 1 { visitor.visit_some(self) } else { visitor.visit_none() }
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.0.below(6);
        visitor.visit_seq(Items { source: self.0, left })
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_seq(Items { source: self.0, left: count })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let index = u32::try_from(self.0.below(variants.len())).expect("few variants");
        visitor.visit_enum(Variant { source: self.0, index })
    }

    forward_to_deserialize_any! {
        i128 u128 f32 f64 char unit_struct tuple_struct map identifier ignored_any
    }
}

struct Items<'a, 'b> {
    source: &'b mut Source<'a>,
    left: usize,
}

impl<'de> SeqAccess<'de> for Items<'_, '_> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        seed.deserialize(Fabricator(self.source)).map(Some)
    }
}

struct Variant<'a, 'b> {
    source: &'b mut Source<'a>,
    index: u32,
}

impl<'de> EnumAccess<'de> for Variant<'_, '_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<(S::Value, Self), Error> {
        let index: U32Deserializer<Error> = self.index.into_deserializer();
        Ok((seed.deserialize(index)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, '_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(Fabricator(self.source))
    }

    fn tuple_variant<V: Visitor<'de>>(self, count: usize, visitor: V) -> Result<V::Value, Error> {
        Fabricator(self.source).deserialize_tuple(count, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        Fabricator(self.source).deserialize_tuple(fields.len(), visitor)
    }
}
